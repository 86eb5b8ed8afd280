"""The public names, the signatures and the docstrings of every loss."""

import ast
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path

import griffe
import mlx.core as mx
import mlx.nn as nn
import pytest
from cases import BY_NAME, SECTIONS, Entry, catalog, docstring_entries, floats

import smoothloss
from smoothloss import losses

EXTRAS = ("weights", "where", "axis")
PACKAGE = Path(smoothloss.__file__).parent
BLOCKS = {
    "Learned",
    "Loss",
    "LossModule",
    "RobustFit",
    "RobustNorm",
    "Threshold",
    "Traits",
    "check_loss",
    "exportable",
    "global_mean",
    "irls",
    "mad",
    "total_weight",
    "vector_loss",
}
TYPES = {"Array", "Axis", "Learnable", "Number", "Parameter", "Reduction"}


def literal_list(file: Path) -> list[str]:
    """The names of ``__all__`` as a tool reads them, without running the file."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} has no __all__")


def test_the_lists_of_names_are_literal_and_complete() -> None:
    """A loss that lost its import line would show here, not by fewer tests."""
    files = {f"{file.stem}_loss" for file in PACKAGE.glob("losses/[a-z]*.py")}
    assert set(losses.__all__) == files, "import the function in smoothloss/losses/__init__.py"
    names = {n for e in catalog() for n in (e.name, e.module.__name__)} | BLOCKS | TYPES
    assert set(smoothloss.__all__) == names, "import function and class in smoothloss/__init__.py"
    for module in (smoothloss, losses):
        assert literal_list(Path(module.__file__)) == module.__all__
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert len(losses.__all__) == len({e.module for e in catalog()}) == 22


def test_every_loss_has_its_row_in_the_textbook(entry: Entry) -> None:
    assert entry.textbook.formula


def test_the_function_and_the_class_carry_one_record(entry: Entry) -> None:
    assert entry.function.loss is entry.module.loss
    assert entry.loss.function is entry.function
    assert (entry.loss.name, entry.loss.data_names) == (entry.name, entry.data_names)
    defaults = {n: p.default for n, p in entry.signature.parameters.items()}
    assert {t.name: t.default for t in entry.loss.thresholds}.items() <= defaults.items()
    assert entry.loss.reduction == defaults["reduction"]
    plain = [p.replace(annotation="") for p in entry.signature.parameters.values()]
    recorded = inspect.signature(entry.loss).parameters.values()
    assert [p.replace(annotation="") for p in recorded] == plain


def test_every_first_and_second_derivative_is_by_hand(entry: Entry) -> None:
    n = 1 + len(entry.loss.thresholds)
    assert len(entry.loss.derivatives) == n + n * (n + 1) // 2
    assert entry.loss.weight is not None


def test_signature_is_that_of_mlx_with_keyword_only_extras(entry: Entry) -> None:
    ours = entry.signature.parameters
    extras = [p for p in ours.values() if p.kind is p.KEYWORD_ONLY]
    assert tuple(p.name for p in extras) == EXTRAS
    assert all(p.default is None for p in extras)
    assert entry.data_names + entry.threshold_names == tuple(ours)[: -len(EXTRAS) - 1]
    peer = getattr(nn.losses, entry.name, None)
    if peer is not None:
        theirs = inspect.signature(peer).parameters
        common = list(ours)[: -len(EXTRAS)]
        assert common == list(theirs)
        assert [ours[n].default for n in common] == [theirs[n].default for n in common]


def test_values_are_those_of_mlx_where_it_is_right(entry: Entry) -> None:
    peer = getattr(nn.losses, entry.name, None)
    if peer is None:
        return
    x, y = mx.random.normal((50,)), mx.random.normal((50,))
    for reduction in ("none", "mean", "sum"):
        ours, theirs = (f(x, y, reduction=reduction) for f in (entry.function, peer))
        assert mx.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


SHARED = ["huber_loss", "l1_loss", "log_cosh_loss", "mse_loss", "smooth_l1_loss"]


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_smoothloss_losses_stands_in_for_mlx_nn_losses(name: str, reduction: str) -> None:
    """The same calls, by position and by keyword, through both modules."""
    x, y = floats(0.5, 0.2, 0.9, 0.0, -3.0), floats(0.7, 0.1, 0.8, 0.2, 1.0)
    first, second = BY_NAME[name].data_names
    shape = [0.7] if BY_NAME[name].loss.thresholds else []
    named = dict(zip(BY_NAME[name].threshold_names, shape, strict=True))
    calls = [
        lambda f: f(x, y, *shape, reduction),
        lambda f: f(x, y, *shape, reduction=reduction),
        lambda f: f(x, y, **named, reduction=reduction),
        lambda f: f(**{first: x, second: y}, **named, reduction=reduction),
        lambda f: f(x, targets=y, reduction=reduction),
        lambda f: f(x, y),
    ]
    for call in calls:
        ours, theirs = (call(getattr(module, name)) for module in (losses, nn.losses))
        assert ours.shape == theirs.shape
        assert mx.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_values_that_the_tests_of_mlx_expect() -> None:
    # ml-explore/mlx, python/tests/test_losses.py
    x, y = floats(0.5, 0.2, 0.9, 0.0), floats(0.7, 0.1, 0.8, 0.2)
    assert mx.allclose(losses.mse_loss(x, y, "none"), floats(0.04, 0.01, 0.01, 0.04), 1e-5)
    assert losses.l1_loss(x, x, "none").tolist() == [0, 0, 0, 0]
    x, y = floats(1.5, 2.5, 0.5, 3.5), floats(1.0, 2.0, 0.5, 2.5)
    assert losses.smooth_l1_loss(x, y, 1.0, reduction="none").tolist() == [0.125, 0.125, 0, 0.5]
    assert losses.smooth_l1_loss(x, y, 1.0, reduction="mean").item() == 0.1875
    x = mx.ones((2, 4))
    assert losses.huber_loss(x, mx.zeros((2, 4)), reduction="mean").item() == 0.5


WRONG = {
    "input": "{0}",
    "y_pred": "{0}",
    "target": "targets",
    "weight": "weights",
    "sample_weight": "weights",
    "mask": "where",
    "dim": "axis",
    "size_average": "reduction",
}


@pytest.mark.parametrize("keyword", WRONG)
def test_wrong_keywords_name_ours(entry: Entry, keyword: str) -> None:
    meant = WRONG[keyword].format(*entry.data_names)
    words = rf"^{entry.name}: `{keyword}` is no argument; expected .*Pass `{meant}` instead\.$"
    x = mx.zeros(3)
    for f in (entry.function, entry.loss):
        with pytest.raises(TypeError, match=words):
            f(x, x, **{keyword: x})


def test_thresholds_of_other_losses_name_ours() -> None:
    x = mx.zeros(3)
    for f, keyword, meant in (
        (losses.huber_loss, "beta", "delta"),
        (losses.smooth_l1_loss, "delta", "beta"),
        (losses.cauchy_loss, "c", "scale"),
        (losses.charbonnier_loss, "eps", "epsilon"),
        (losses.quantile_loss, "alpha", "quantile"),
        (losses.huber_loss, "predictions", "inputs"),
        (losses.l1_loss, "inputs", "predictions"),
    ):
        with pytest.raises(TypeError, match=f"`{keyword}` is no argument.*Pass `{meant}` instead"):
            f(x, x, **{keyword: 1.0})
    with pytest.raises(TypeError, match=r"`foo` is no argument; expected inputs, .*Correct the"):
        losses.huber_loss(x, x, foo=1)


def public_callables() -> list[tuple[str, Callable[..., object]]]:
    """Every public function, and every public or overridden method of a public class."""
    found = []
    for name in set(smoothloss.__all__) - TYPES:
        thing = getattr(smoothloss, name)
        members = vars(thing).items() if isinstance(thing, type) else [("", thing)]
        for method, f in members:
            written = inspect.isfunction(f) and f.__module__.startswith("smoothloss")
            generated = method.startswith("__") and getattr(f, "__doc__", None) is None
            if written and (not generated or method in ("__init__", "__call__")):
                found.append((f"{name}.{method}", f))
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize(("name", "thing"), public_callables())
def test_type_hints_are_there_at_run_time(name: str, thing: Callable[..., object]) -> None:
    hints = typing.get_type_hints(thing)
    assert hints.keys() >= set(inspect.signature(thing).parameters) - {"self"}, name
    assert "return" in hints, name


def test_annotations_are_complete(entry: Entry) -> None:
    hints = typing.get_type_hints(entry.function)
    assert hints.pop("return") is mx.array
    assert list(hints) == list(entry.signature.parameters)
    assert hints["reduction"] == smoothloss.Reduction
    assert {hints[name] for name in entry.data_names} == {smoothloss.Array}


def test_an_api_extractor_sees_every_name_and_parameter() -> None:
    """griffe reads the source, as documentation tools do, and runs nothing."""
    package = griffe.load("smoothloss", search_paths=[PACKAGE.parent], allow_inspection=False)
    assert package.exports == smoothloss.__all__
    for name in smoothloss.__all__:
        found = package[name].final_target
        assert found.docstring, name
        if name in TYPES:
            continue
        thing = getattr(smoothloss, name)
        if found.is_function:
            names = [p.name for p in found.parameters]
            assert [n.lstrip("*") for n in names] == list(inspect.signature(thing).parameters)
        text = inspect.cleandoc(found.docstring.value)
        assert text == inspect.getdoc(thing), "a docstring is changed at import"


def test_help_begins_with_a_table_of_the_losses() -> None:
    lines = (smoothloss.__doc__ or "").splitlines()
    assert len(lines) < 200
    table = [line.split(maxsplit=1) for line in lines[:40] if re.match(r"    \w+_loss ", line)]
    assert {name for name, _ in table} == {e.name for e in catalog()}
    for name, words in table:
        summary = (inspect.getdoc(getattr(smoothloss, name)) or "").splitlines()[0]
        assert summary.split(": ", 1)[1] == f"{words}.", name
    assert all(f"    {name} " in smoothloss.__doc__ for name in BLOCKS)


def test_docstrings_are_complete(entry: Entry) -> None:
    text = inspect.getdoc(entry.function) or ""
    assert re.findall(r"^(\w+)\n-+$", text, re.MULTILINE) == SECTIONS
    assert list(docstring_entries(entry.function)) == list(entry.signature.parameters)
    for part in (r"\rho", r"\psi", "NaN", "inf", ">>>", "http"):
        assert part in text, part
    summary = text.splitlines()[0]
    assert len(summary) < 100
    assert summary.endswith(".")


@pytest.mark.parametrize("name", ["reduction", *EXTRAS])
def test_what_all_losses_share_is_described_alike(entry: Entry, name: str) -> None:
    ours, theirs = (docstring_entries(e.function)[name] for e in (entry, BY_NAME["l1_loss"]))
    default = entry.loss.reduction
    assert ours == theirs.replace('default "mean"', f'default "{default}"')


def test_public_classes_and_functions_are_documented() -> None:
    for name in sorted(BLOCKS):
        text = inspect.getdoc(getattr(smoothloss, name)) or ""
        for section in ["Parameters"] * (name != "exportable") + ["Examples"]:
            assert f"\n{section}\n---" in text, (name, section)
