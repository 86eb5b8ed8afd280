"""The arguments of the modules: signatures, errors, repr, the old ones of PyTorch, docstrings."""

import inspect
import re
import warnings
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cases import WITH_THRESHOLD, Entry, docstring_entries, fitted

import smoothloss as sl

OLD = {sl.L1Loss, sl.MSELoss, sl.SmoothL1Loss}  # that have two more arguments in PyTorch


def test_signature_is_that_of_the_function_without_its_data(entry: Entry) -> None:
    ours = inspect.signature(entry.module).parameters
    old = [p for p in ours.values() if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in old] == (["size_average", "reduce"] if entry.module in OLD else [])
    assert all(p.default is None for p in old)
    rest = {name: p.default for name, p in ours.items() if p not in old}
    theirs = entry.signature.parameters
    assert list(rest) == [*entry.threshold_names, "reduction"]
    assert rest == {n: theirs[n].default for n in entry.threshold_names} | {"reduction": "mean"}


@pytest.mark.parametrize("positive", [0.7, mx.array(0.7), mx.array([[0.3], [4.0]])])
def test_repr_evaluates_to_the_same(entry: Entry, positive: object) -> None:
    loss = entry.module(*fitted(entry, positive), reduction="sum")
    again = eval(repr(loss), vars(sl) | vars(mx))
    assert type(again) is type(loss)
    for name in (*entry.threshold_names, "reduction"):
        theirs, ours = getattr(again, name), getattr(loss, name)
        near = mx.allclose(theirs, ours) if isinstance(ours, mx.array) else theirs == ours
        assert near, name


def test_repr_shows_every_argument(entry: Entry) -> None:
    defaults = {n: p.default for n, p in entry.signature.parameters.items()}
    words = [f"{name}={defaults[name]}" for name in entry.threshold_names]
    words = ", ".join([*words, "reduction='mean'"])
    assert repr(entry.module()) == f"{entry.module.__name__}({words})"


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
@pytest.mark.parametrize("bad", [float("nan"), -np.inf, "mean", True, None, [0.5], 1j])
def test_bad_thresholds_raise_at_once(entry: Entry, bad: object) -> None:
    name, loss = entry.threshold_names[0], entry.module()
    if bad == -np.inf and entry.loss.thresholds[0].low == -np.inf:
        return
    for act in (lambda: entry.module(bad), lambda: setattr(loss, name, bad)):
        with pytest.raises((TypeError, ValueError), match=f"^{entry.module.__name__}: `{name}` is"):
            act()
    assert repr(loss) == repr(entry.module())


def test_a_list_is_told_to_be_an_array() -> None:
    with pytest.raises(TypeError, match=r"`quantile` is of type list; .* values as mx\.array"):
        sl.QuantileLoss([0.1, 0.9])


def test_errors_of_a_call_name_the_class(entry: Entry) -> None:
    with pytest.raises(ValueError, match=rf"^{entry.module.__name__}: `predictions` has shape"):
        entry.module()(mx.zeros(3), mx.zeros((3, 1)))


@pytest.mark.parametrize("dtype", [mx.bool_, mx.complex64])
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_arrays_that_are_no_real_numbers_raise(entry: Entry, dtype: mx.Dtype) -> None:
    with pytest.raises(TypeError, match=rf"^{entry.module.__name__}: .* has dtype .*{dtype}"):
        entry.module(mx.ones((), dtype))


@pytest.mark.parametrize("kind", [np.array, mx.array])
@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_an_array_of_integers_is_a_threshold(entry: Entry, kind: Any) -> None:
    x, one = mx.array([0.5, 3.0]), dict.fromkeys(entry.threshold_names, kind(1))
    want = entry.function(x, 0 * x, **one, reduction="mean")
    assert entry.module(**one)(x, 0 * x) == want


def test_bad_reductions_raise_at_once(entry: Entry) -> None:
    loss = entry.module()
    for act in (
        lambda: entry.module(reduction="median"),
        lambda: setattr(loss, "reduction", None),
    ):
        with pytest.raises(ValueError, match=f"^{entry.module.__name__}: `reduction` is"):
            act()


# PyTorch 2.13.0: size_average, reduce and what they mean, whatever reduction says.
MEANT = {
    (None, None): None,
    (None, True): "mean",
    (None, False): "none",
    (True, None): "mean",
    (True, True): "mean",
    (True, False): "none",
    (False, None): "sum",
    (False, True): "sum",
    (False, False): "none",
}


@pytest.mark.parametrize("module", sorted(OLD, key=str))
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("old", MEANT)
def test_old_arguments_of_pytorch(module: type, reduction: str, old: tuple[Any, Any]) -> None:
    given = dict(zip(("size_average", "reduce"), old, strict=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = module(reduction=reduction, **given)
    meant = MEANT[old]
    assert loss.reduction == (meant or reduction)
    if meant is None:
        assert not caught
        return
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__  # the caller's line
    assert f"use reduction='{meant}'" in str(warning.message)


@pytest.mark.parametrize("module", sorted(OLD, key=str))
def test_old_arguments_are_checked(module: type) -> None:
    with pytest.raises(TypeError, match=r"`reduce` is of type str; .* Pass reduction="):
        module(reduce="mean")
    with pytest.raises(ValueError, match="`reduction` is 'median'"):
        module(reduction="median")
    with pytest.raises(TypeError):
        sl.HuberLoss(reduce=True)


def test_docstrings_are_complete(entry: Entry) -> None:
    text = inspect.getdoc(entry.module) or ""
    assert re.findall(r"^(\w+)\n-+$", text, re.MULTILINE) == ["Parameters", "Examples"]
    described = re.findall(r"^([\w, ]+) : ", text.split("Examples\n")[0], re.MULTILINE)
    assert ", ".join(described).split(", ") == list(inspect.signature(entry.module).parameters)
    assert f"See :func:`{entry.name}`" in text
    assert len(text.splitlines()[0]) < 100


def test_a_threshold_is_described_as_in_the_function(entry: Entry) -> None:
    ours, theirs = (docstring_entries(v) for v in (entry.module, entry.function))
    for name in entry.threshold_names:
        learnable = theirs[name].replace("float or mx.array", "float, mx.array or Learned")
        assert ours[name] == learnable


@pytest.mark.parametrize("entry", WITH_THRESHOLD)
def test_a_docstring_says_first_how_to_schedule(entry: Entry) -> None:
    text = " ".join((inspect.getdoc(entry.module) or "").split("Parameters\n")[0].split())
    recipe = rf"set it as in ``loss\.{entry.threshold_names[0]} = mx\.array\(0\.5\)``, and pass"
    assert re.search(rf"{recipe} .* never trained; .* Only :class:`Learned` is trained", text)


@pytest.mark.parametrize("keyword", ["input", "weight", "mask", "sample_weight", "dim", "foo"])
def test_wrong_keywords_of_a_call_name_ours(entry: Entry, keyword: str) -> None:
    x = mx.zeros(3)
    with pytest.raises(TypeError, match=rf"^{entry.module.__name__}: `{keyword}` is no argument"):
        entry.module()(x, x, **{keyword: x})
    with pytest.raises(TypeError, match=rf"^{entry.module.__name__}: `{keyword}` is no argument"):
        entry.module(**{keyword: 1.0})


@pytest.mark.parametrize("keyword", ["weights", "where", "axis"])
def test_what_belongs_to_the_call_is_no_argument_of_a_class(entry: Entry, keyword: str) -> None:
    with pytest.raises(TypeError, match=rf"in the call, as in loss\(x, y, {keyword}=\.\.\.\)"):
        entry.module(**{keyword: mx.zeros(3)})


def test_reduced_axes_are_put_back_as_the_error_says(entry: Entry) -> None:
    x = mx.zeros((3, 2))
    with pytest.raises(
        TypeError, match=r"Reduced axes are dropped; mx\.expand_dims puts them back"
    ):
        entry.function(x, x, axis=1, keepdims=True)


def test_a_class_is_called_by_either_name(entry: Entry) -> None:
    x, y, loss = mx.ones(3), mx.zeros(3), entry.module()
    want = loss(x, y).item()
    assert loss(predictions=x, targets=y).item() == loss(inputs=x, targets=y).item() == want
    assert loss(x, targets=y).item() == want
    for data, named in (((), {}), ((x,), {}), ((x, y, y), {}), ((x,), {"inputs": x})):
        with pytest.raises(TypeError, match=r"expected two arrays, predictions and targets"):
            loss(*data, **named)
    with pytest.raises(TypeError, match="`inputs` was given twice"):
        loss(x, y, inputs=x)


def test_arguments_of_the_constructor_are_not_those_of_a_call(entry: Entry) -> None:
    for name in (*entry.threshold_names, "reduction"):
        words = rf"{entry.module.__name__}: a call does not take `{name}`; .* Pass it to"
        with pytest.raises(TypeError, match=words):
            entry.module()(mx.zeros(3), mx.zeros(3), **{name: "sum"})
