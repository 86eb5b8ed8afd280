"""The losses as modules: settings, parameters, and a result that is the function's."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from cases import (
    WITH_THRESHOLD,
    Entry,
    Line,
    fitted,
    same_bits,
    thresholds,
    train,
)
from mlx.utils import tree_flatten

import smoothloss as sl

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda loss: pickle.loads(pickle.dumps(loss)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def data(*shape: int) -> tuple[mx.array, mx.array]:
    return 2 * mx.random.normal(shape), mx.random.normal(shape)


def names(parameters: object) -> list[str]:
    return [name for name, _ in tree_flatten(parameters)]


def test_a_call_is_the_functions_to_the_bit(entry: Entry) -> None:
    x, y = data(6, 5)
    given = {"weights": mx.random.uniform(shape=(1, 5)), "where": x > 0}
    theta = thresholds(entry, mx.array([0.3, 0.5, 1.0, 1.5, 7.0]))
    loss = entry.module(**theta)
    for reduction in ("none", "mean", "sum"):
        loss.reduction = reduction
        assert same_bits(loss(x, y), entry.function(x, y, **theta, reduction=reduction))
        want = entry.function(x, y, **theta, reduction=reduction, **given)
        assert same_bits(loss(predictions=x, targets=y, **given), want)
    want = entry.function(x, y, **theta, reduction="sum", axis=-1)
    assert same_bits(loss(x, y, axis=-1), want)


def test_arguments_are_attributes(entry: Entry) -> None:
    """Positional and by keyword; set, the next call has them."""
    x, y = data(50)
    theta = thresholds(entry, 0.7)
    loss = entry.module(*theta.values(), "sum")
    for name, value in theta.items():
        assert getattr(loss, name) == value
        setattr(loss, name, value / 2)
        theta[name] = value / 2
        assert same_bits(loss(x, y), entry.function(x, y, **theta, reduction="sum"))
    assert loss.reduction == "sum"
    loss.reduction = "none"
    assert loss(x, y).shape == (50,)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("positive", [0.7, mx.array(0.7)])
def test_copies(entry: Entry, how: str, positive: object) -> None:
    x, y = data(20)
    loss = entry.module(*fitted(entry, positive), reduction="sum").freeze()
    again = COPIES[how](loss)
    assert type(again) is type(loss)
    assert repr(again) == repr(loss)
    assert same_bits(again(x, y), loss(x, y))
    assert names(again.trainable_parameters()) == []
    again.reduction = "none"
    assert loss.reduction == "sum"


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_only_arrays_of_mlx_are_parameters(entry: Entry) -> None:
    both = sorted(entry.threshold_names)
    loss = entry.module(*fitted(entry, 0.7))
    assert loss.parameters() == {}
    for name, value in thresholds(entry, np.float32(0.7)).items():
        setattr(loss, name, np.asarray(value))  # fixed, elementwise
    assert loss.parameters() == {}
    for name, value in thresholds(entry, mx.array(0.7)).items():
        setattr(loss, name, value)
    assert sorted(names(loss.parameters())) == both
    for name, value in thresholds(entry, 0.7).items():
        setattr(loss, name, value)
    assert loss.parameters() == {}


@pytest.mark.every(5)
@pytest.mark.parametrize("positive", [0.7, mx.array(0.7), mx.array([0.7, 2.0])])
def test_gradients_of_a_model_that_holds_it(entry: Entry, positive: object) -> None:
    """nn.value_and_grad, plain and compiled, gives mx.value_and_grad of the function."""
    x, y = data(20, 2)
    theta = thresholds(entry, positive)
    model = Line(entry.module(**theta))
    held = isinstance(positive, mx.array)
    within = [f"loss.{name}" for name in entry.threshold_names if held]
    assert sorted(names(model.parameters())) == sorted(["line.bias", "line.weight", *within])

    def by_hand(weight: mx.array, bias: mx.array) -> mx.array:
        return entry.function(x @ weight.T + bias, y, **theta, reduction="mean")

    want, slopes = mx.value_and_grad(by_hand, (0, 1))(*model.line.parameters().values())
    both = dict(zip(("line.weight", "line.bias"), slopes, strict=True))

    step = nn.value_and_grad(model, lambda x, y: model(x, y))
    for f in (step, mx.compile(step, inputs=model.state)):
        value, grads = f(x, y)
        assert mx.allclose(value, want, rtol=1e-6)
        assert sorted(names(grads)) == sorted(both)
        for name, g in tree_flatten(grads):
            assert mx.allclose(g, both[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_weights_are_saved_and_loaded(entry: Entry, tmp_path: Any) -> None:
    first, second = (Line(entry.module(*fitted(entry, mx.array(v)))) for v in (0.3, 0.8))
    first.save_weights(str(tmp_path / "model.safetensors"))
    second.load_weights(str(tmp_path / "model.safetensors"))
    assert repr(second.loss) == repr(first.loss)


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_can_change_between_compiled_calls(entry: Entry) -> None:
    """And what is traced is traced once."""
    x, y = data(20)
    loss = entry.module(*fitted(entry, mx.array(0.7)))
    traces = []

    def step(x: mx.array) -> mx.array:
        traces.append(1)
        return loss(x, y)

    compiled = mx.compile(mx.value_and_grad(step), inputs=loss.state)
    for v in (0.7, 0.2, 1.7):
        theta = thresholds(entry, mx.array(v))
        for name, value in theta.items():
            setattr(loss, name, value)
        assert mx.allclose(compiled(x)[0], entry.function(x, y, **theta, reduction="mean"))
    assert len(traces) == 1


THAWS: dict[str, Callable[[nn.Module, str], object]] = {
    "made": lambda model, name: None,
    "unfreeze": lambda model, name: model.unfreeze(),
    "freeze and unfreeze": lambda model, name: model.freeze().unfreeze(),
    "by key": lambda model, name: model.unfreeze(keys=name),
    "by strict keys": lambda model, name: model.unfreeze(keys=[name], strict=True),
    "itself": lambda model, name: model.loss.unfreeze(recurse=False),
    "each": lambda model, name: model.apply_to_modules(lambda _, m: m.unfreeze()),
}


@pytest.mark.parametrize("how", THAWS)
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_is_never_trained(entry: Entry, how: str) -> None:
    """Given at first or set later, in place of a number or of a Learned."""
    name = entry.threshold_names[0]
    start = thresholds(entry, mx.array(0.7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = [entry.module(**start), entry.module(), entry.module(sl.Learned(0.4, high=0.9))]
    for loss in losses:
        model = Line(loss)
        for threshold, value in start.items():
            setattr(loss, threshold, value)
        THAWS[how](model, name)
        assert names(model.trainable_parameters()["loss"]) == []
        assert sorted(names(loss.parameters())) == sorted(entry.threshold_names)


def test_training_leaves_arrays_alone(entry: Entry) -> None:
    x, y = data(50, 2)
    model = Line(entry.module(**thresholds(entry, mx.array([0.7, 2.0]))))
    model.unfreeze()
    held = repr(model.loss)
    first, *_, last = train(model, optim.Adam(0.05), 20, x, y)
    assert last < first
    assert repr(model.loss) == held


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_a_learned_threshold_is_trained_unless_frozen(entry: Entry) -> None:
    """In place of an array as well, and in copies."""
    name = entry.threshold_names[0]
    loss = entry.module(*fitted(entry, mx.array(0.7)))
    copied = copy.copy(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(loss, name, sl.Learned(0.4, high=0.9))
    model = Line(loss)
    for freeze, want in ((None, [f"{name}.raw"]), (True, []), (False, [f"{name}.raw"])):
        if freeze is not None:
            model.freeze() if freeze else model.unfreeze()
        assert names(loss.trainable_parameters()) == want
        assert names(copied.trainable_parameters()) == []


def test_other_parameters_of_a_derived_class_are_trained() -> None:
    class Gain(sl.HuberLoss):
        def __init__(self) -> None:
            super().__init__(mx.array(1.0))
            self.gain = mx.array(2.0)

    model = Line(Gain())
    assert names(model.loss.trainable_parameters()) == ["gain"]
    model.loss.freeze()
    assert names(model.loss.trainable_parameters()) == []
    model.unfreeze()
    assert names(model.loss.trainable_parameters()) == ["gain"]


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_is_cast_with_the_model(entry: Entry) -> None:
    model = Line(entry.module(*fitted(entry, mx.array(0.7))))
    model.set_dtype(mx.float16)
    assert {v.dtype for _, v in tree_flatten(model.parameters())} == {mx.float16}


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_a_schedule_in_a_compiled_step(entry: Entry) -> None:
    """The step that trains the model follows the threshold, and is traced once."""
    x, y = data(20, 2)
    model, optimizer = Line(entry.module(*fitted(entry, mx.array(0.7)))), optim.SGD(0.0)
    optimizer.init(model.trainable_parameters())
    state, traces = [model.state, optimizer.state], []

    def step(x: mx.array, y: mx.array) -> mx.array:
        traces.append(1)
        value, grads = nn.value_and_grad(model, model)(x, y)
        optimizer.update(model, grads)
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)
    for v in (0.7, 0.2, 1.7):
        theta = thresholds(entry, mx.array(v))
        for name, value in theta.items():
            setattr(model.loss, name, value)
        want = entry.function(model.line(x), y, **theta, reduction="mean")
        assert mx.allclose(compiled(x, y), want, rtol=1e-5)
    assert len(traces) == 1


def test_users_may_derive_from_it() -> None:
    class Scaled(sl.HuberLoss):
        """Twice the loss."""

        def __call__(self, *data: mx.array, **named: Any) -> mx.array:
            return 2 * super().__call__(*data, **named)

    x, y = data(5)
    loss = Scaled(0.3)
    assert repr(loss) == "Scaled(delta=0.3, reduction='mean')"
    assert Scaled.__doc__ == "Twice the loss."
    assert same_bits(loss(x, y), 2 * sl.HuberLoss(0.3)(x, y))
