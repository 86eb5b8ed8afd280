"""The catalogue, the signatures and the documentation of every loss."""

import inspect
import re
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from cases import SECTIONS, entry as entry, floats  # entry: a fixture

import smoothloss
from smoothloss._catalog import Entry, catalog

EXTRAS = ("weights", "where", "axis")


def test_the_public_names_are_the_losses() -> None:
    public = {n for n, v in vars(smoothloss).items() if not n.startswith("_") and callable(v)}
    losses = {name for e in catalog() for name in (e.name, e.module.__name__)}
    assert public == losses | {"Learned", "RobustNorm"} == set(smoothloss.__all__)
    # A loss that lost its import line would show here, not by fewer tests.
    files = Path(smoothloss.__file__).parent.glob("losses/[a-z]*.py")
    assert {f"{file.stem}_loss" for file in files} == {e.name for e in catalog()}


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


def test_values_that_the_tests_of_mlx_expect() -> None:
    # ml-explore/mlx, python/tests/test_losses.py
    x, y = floats(0.5, 0.2, 0.9, 0.0), floats(0.7, 0.1, 0.8, 0.2)
    assert mx.allclose(smoothloss.mse_loss(x, y, "none"), floats(0.04, 0.01, 0.01, 0.04), 1e-5)
    assert smoothloss.l1_loss(x, x, "none").tolist() == [0, 0, 0, 0]
    x, y = floats(1.5, 2.5, 0.5, 3.5), floats(1.0, 2.0, 0.5, 2.5)
    assert smoothloss.smooth_l1_loss(x, y, 1.0, reduction="none").tolist() == [0.125, 0.125, 0, 0.5]
    assert smoothloss.smooth_l1_loss(x, y, 1.0, reduction="mean").item() == 0.1875
    x = mx.ones((2, 4))
    assert smoothloss.huber_loss(x, mx.zeros((2, 4)), reduction="mean").item() == 0.5


def test_docstrings_are_complete(entry: Entry) -> None:
    text = inspect.getdoc(entry.function) or ""
    places = [text.find(f"\n{name}\n{'-' * len(name)}\n") for name in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    for name in entry.signature.parameters:
        assert re.search(rf"^(\w+, )?{name}(, \w+)? : ", text, re.MULTILINE), name
    for phrase in (r"\rho", r"\psi", "near zero", "in the tails", "NaN", "inf", ">>>", "http"):
        assert phrase in text, phrase
    for name in entry.threshold_names:
        assert f"number {name} is" in text
    summary = text.splitlines()[0]
    assert len(summary) < 100
    assert summary.endswith(".")


def test_annotations_are_complete(entry: Entry) -> None:
    assert entry.signature.return_annotation == "mx.array"
    assert all(p.annotation is not p.empty for p in entry.signature.parameters.values())


def test_the_hessian_is_symmetric(entry: Entry) -> None:
    size = 1 + len(entry.loss.thresholds)
    assert len(entry.loss.gradient) == size
    assert [len(row) for row in entry.loss.hessian] == [size] * size
    for i in range(size):
        for j in range(i):
            assert entry.loss.hessian[i][j] is entry.loss.hessian[j][i]
