"""The arguments of a loss by position and by name, and errors for those it does not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .._threshold import Threshold

F = TypeVar("F", bound=Callable[..., Any])

DATA = ("predictions", "inputs")
SCALES = ("delta", "beta", "scale", "kappa", "epsilon")
# What other libraries call our arguments; the first that a function has is meant.
MEANT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("predictions", "inputs", "input", "pred", "preds", "y_pred", "x"), DATA),
    **dict.fromkeys(("target", "labels", "y_true", "y"), ("targets",)),
    **dict.fromkeys(("weight", "sample_weight", "sample_weights"), ("weights",)),
    **dict.fromkeys(("mask", "masks"), ("where",)),
    **dict.fromkeys(("dim", "dims", "axes"), ("axis",)),
    **dict.fromkeys(("size_average", "reduce", "red"), ("reduction",)),
    **dict.fromkeys(("delta", "beta", "threshold", "d"), SCALES),
    **dict.fromkeys(("scale", "c", "sigma"), SCALES),
    **dict.fromkeys(("epsilon", "eps"), SCALES[::-1]),
    **dict.fromkeys(("tau", "q", "quantiles", "alpha"), ("quantile",)),
    "shape": ("alpha",),
}


# What is done elsewhere: with a call of the module, or after it.
ELSEWHERE = {
    **dict.fromkeys(
        ("weights", "where", "axis"), "Pass it in the call, as in loss(x, y, {name}=...)."
    ),
    "reduction": "Leave it out.",
    **dict.fromkeys(
        ("keepdims", "keepdim"), "Reduced axes are dropped; mx.expand_dims puts them back."
    ),
}


def unknown(function: str, keyword: str, known: Iterable[str]) -> TypeError:
    """The error of a keyword that a function does not have."""
    known = list(known)
    meant = next((name for name in MEANT.get(keyword, ()) if name in known), None)
    fix = ELSEWHERE.get(keyword, "Correct the name.").format(name=keyword)
    if meant:
        fix = f"Pass `{meant}` instead."
    return TypeError(
        f"{function}: `{keyword}` is no argument; expected {', '.join(known) or 'none'}. {fix}"
    )


def known_keywords(name: str) -> Callable[[F], F]:
    """Let a function raise our error where it is passed a keyword that it does not have.

    ``name`` is the function's name in the error.
    """

    def decorate(function: F) -> F:
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        known = frozenset(parameters)

        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            if keywords and not keywords.keys() <= known:
                raise unknown(name, next(k for k in keywords if k not in known), parameters)
            return function(*args, **keywords)

        return call  # type: ignore[return-value]

    return decorate


def two_arrays(
    name: str, data_names: tuple[str, str], given: Sequence[Any], named: dict[str, Any]
) -> tuple[Any, Any, Sequence[Any]]:
    """The two data arrays, by position or taken from ``named``, and what follows by position.

    ``predictions`` and ``inputs`` are always names of the first.
    """
    if len(given) >= 2:
        x, y, *rest = given
    else:
        slots = [(data_names[0], *DATA), (data_names[1],)][len(given) :]
        taken = [[named.pop(key) for key in {*slot} & named.keys()] for slot in slots]
        if any(len(values) != 1 for values in taken):
            raise TypeError(
                f"{name}: expected two arrays, {' and '.join(data_names)}, each given once. "
                f"Pass them first, by position."
            )
        x, y = [*given, *(value for (value,) in taken)]
        rest = []
    twice = next((key for key in named if key in (*data_names, *DATA)), None)
    if twice is not None:
        raise TypeError(
            f"{name}: `{twice}` was given twice; expected one value. Pass it by position or by "
            f"keyword."
        )
    return x, y, rest


def bind(
    name: str,
    thresholds: Sequence[Threshold],
    given: Sequence[Any],
    named: Mapping[str, Any],
    reduction: str,
) -> list[Any]:
    """The thresholds and the reduction, in order, from arguments by position and by name.

    ``name`` is what errors say; ``reduction`` is the default.
    """
    defaults = {t.name: t.default for t in thresholds} | {"reduction": reduction}
    if len(given) > len(defaults):
        raise TypeError(
            f"{name}: {len(given)} arguments were given by position; expected at most "
            f"{len(defaults)}: {', '.join(defaults)}. Leave out the rest, or pass it by keyword."
        )
    values = dict(zip(defaults, given, strict=False))
    for keyword, value in named.items():
        if keyword not in defaults:
            raise unknown(name, keyword, defaults)
        if keyword in values:
            other = values[keyword]
            fix = "Pass it by position or by keyword."
            if isinstance(other, str) and keyword != "reduction":
                fix = f"Pass the reduction by keyword, as in reduction={other!r}."
            raise TypeError(f"{name}: `{keyword}` was given twice; expected one value. {fix}")
        values[keyword] = value
    for keyword, default in defaults.items():
        if keyword not in values and default is None:
            raise TypeError(
                f"{name}: `{keyword}` is missing and has no default; expected a number or an "
                f"array. Pass {keyword}=..."
            )
    return [values.get(keyword, default) for keyword, default in defaults.items()]


def signature(
    data_names: tuple[str, str], thresholds: Sequence[Threshold], reduction: str
) -> inspect.Signature:
    """The signature of a function of a loss."""
    empty = inspect.Parameter.empty
    positional = {
        **dict.fromkeys(data_names, ("Array", empty)),
        **{t.name: ("Parameter", empty if t.default is None else t.default) for t in thresholds},
        "reduction": ("Reduction", reduction),
    }
    keyword = {"weights": "Parameter | None", "where": "Array | None", "axis": "Axis"}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=a, default=d)
        for name, (a, d) in positional.items()
    ]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=a, default=None)
        for name, a in keyword.items()
    ]
    return inspect.Signature(parameters, return_annotation="mx.array")
