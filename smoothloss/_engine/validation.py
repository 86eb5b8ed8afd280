"""Checks of what a record of a loss is made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from .._threshold import Threshold
from .._traits import Traits
from .._types import Formula
from . import inputs

if TYPE_CHECKING:
    from .._loss import Loss

# Names that thresholds may not have: other arguments of a loss, and what a module has.
RESERVED: tuple[str, ...] = (
    *("r", "predictions", "inputs", "targets", "reduction", "weights", "where", "axis"),
    *("loss", "thresholds", "self", "given"),
)


def check(loss: Loss) -> None:
    """Raise where a part of a record is not what it should be."""
    inputs.check_reduction("Loss", loss.reduction)
    kinds: list[tuple[str, object, type, str]] = [
        ("name", loss.name, str, "a name"),
        ("traits", loss.traits, Traits, "Traits(...)"),
        *(("thresholds", t, Threshold, "a list of Threshold(...)") for t in _listed(loss)),
    ]
    for argument, value, kind, expected in kinds:
        if not isinstance(value, kind):
            raise TypeError(
                f"Loss: `{argument}` is or holds {value!r}, of type {type(value).__name__}; "
                f"expected {expected}. Pass that."
            )
    _check_names(loss)
    given = {"psi": loss.psi, "psi_prime": loss.psi_prime, "weight": loss.weight}
    given["plain"] = loss.plain
    formulas: dict[Any, object] = {"rho": loss.rho, **loss.partials, **loss.ordinary}
    formulas |= {key: formula for key, formula in given.items() if formula is not None}
    for key, formula in formulas.items():
        if not callable(formula):
            raise TypeError(
                f"Loss: `{key}` of {loss.name} is of type {type(formula).__name__}; expected a "
                f"function of (r, *thresholds) that returns an array. Pass one."
            )


def _listed(loss: Loss) -> Sequence[object]:
    """What was given as the list of thresholds."""
    given: object = loss.thresholds
    if not isinstance(given, list | tuple):
        raise TypeError(
            f"Loss: `thresholds` of {loss.name} is no list; expected a list of Threshold(...). "
            f"Put it in brackets."
        )
    return given


def _check_names(loss: Loss) -> None:
    names = [t.name for t in loss.thresholds]
    data: object = loss.data_names
    if not isinstance(data, tuple) or len({*data}) != 2 or not all(map(_is_name, data)):
        raise ValueError(
            f"Loss: `data_names` of {loss.name} is {data!r}; expected two different names. "
            f"Leave it out for ('predictions', 'targets')."
        )
    for name in names:
        if name in (*RESERVED, *data) or hasattr(Module, name) or names.count(name) > 1:
            raise ValueError(
                f"Loss: a threshold of {loss.name} is called `{name}`, which is taken; expected a "
                f"name that no other argument, and no attribute of mlx.nn.Module, has. Rename it."
            )
    defaults = [t.default is not None for t in loss.thresholds]
    if any(b < a for a, b in itertools.pairwise(defaults)):
        raise ValueError(
            f"Loss: the thresholds of {loss.name} are {', '.join(names)}, of which one without a "
            f"default follows one with a default. Give it a default, or move it forward."
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


def derivatives(
    loss: str, names: Sequence[str], given: Mapping[Any, Formula | None]
) -> dict[tuple[str, ...], Formula]:
    """The formulas that are given, by the sorted names that they are derivatives by."""
    found: dict[tuple[str, ...], Formula] = {}
    for key, formula in given.items():
        if formula is None:
            continue
        by = (key,) if isinstance(key, str) else tuple(key)
        if not 1 <= len(by) <= 2 or not set(by) <= set(names):
            raise ValueError(
                f"Loss: `partials` of {loss} has the key {key!r}; expected one or two of "
                f"{', '.join(map(repr, names))}. Correct the names."
            )
        by = tuple(sorted(by, key=names.index))
        if by in found:
            raise ValueError(
                f"Loss: the derivative of {loss} by {' and '.join(by)} is given twice; expected it "
                f"once. Leave one out: psi and psi_prime are those by r and by r twice."
            )
        found[by] = formula
    for by in found:
        if any((name,) not in found for name in by):
            raise ValueError(
                f"Loss: the second derivative of {loss} by {' and '.join(by)} is given without the "
                f"first ones; expected both. Give the first derivatives too, or leave both to MLX."
            )
    return found


def as_elementwise(formula: Formula, out: object, r: mx.array) -> mx.array:
    """What a formula returned, of the shape of r at least; a number counts for every element."""
    if isinstance(out, int | float):
        out = mx.full(r.shape, out, r.dtype)
    if not isinstance(out, mx.array):
        raise TypeError(
            f"{getattr(formula, '__name__', 'a formula')}: a formula of a loss returned "
            f"{type(out).__name__}; expected an array, made from r and the thresholds by functions "
            f"of mlx.core. Return one."
        )
    return mx.broadcast_to(out, mx.broadcast_shapes(out.shape, r.shape))
