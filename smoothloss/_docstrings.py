"""What the class of a loss says, from what its function says: it is written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

REDUCTION = """\
reduction : {"none", "mean", "sum"}, default "mean"
    What a call returns: every loss, their mean or their sum."""

LEGACY = """\
size_average, reduce : bool, optional
    PyTorch's arguments of old. If one is given, reduction is not looked at: it is "none" if reduce
    is False, else "sum" if size_average is False, else "mean". Warns DeprecationWarning."""

CALL = """\
The arguments are attributes, which may be set at any time. A call is
``loss(predictions, targets, *, weights=None, where=None, axis=None)``, as of :func:`{name}`."""

LEARNED = """\
A threshold that is a number or a NumPy array is fixed. An ``mx.array`` is a parameter, trained with
the model that holds the loss unless frozen; :class:`Learned` is one that stays inside its range. A
compiled step reads what is fixed, and the reduction, when it is traced: to change a threshold
between its calls, make it a frozen array and pass the module's ``state`` to ``mx.compile``.

"""


def _sections(text: str) -> dict[str, str]:
    """The parts of a NumPy docstring by heading; the beginning has none."""
    head, *rest = re.split(r"^(\w+)\n-+\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return {"": head} | dict(zip(rest[::2], rest[1::2], strict=True))


def _entries(text: str, names: set[str]) -> list[str]:
    """The entries of a section of parameters, those of ``names`` only."""
    entries = re.findall(r"^\S.*(?:\n .*)*", text, flags=re.MULTILINE)
    return [entry for entry in entries if entry.split(" : ")[0] in names]


def of_module(module: type, function: Callable[..., Any]) -> str | None:
    """The docstring of a class: its own summary and example, around what the function says."""
    if not module.__doc__ or not function.__doc__:  # python -OO strips them
        return module.__doc__
    own, shared = _sections(module.__doc__), _sections(function.__doc__)
    first = next(iter(inspect.signature(function).parameters))
    shared = {k: re.sub(rf"\b{first}\b", "predictions", v) for k, v in shared.items()}
    names = set(inspect.signature(module).parameters)
    thresholds = [
        entry.replace("float or mx.array", "float, mx.array or Learned", 1)
        for entry in _entries(shared["Parameters"], names - {"reduction"})
    ]
    parameters = [*thresholds, REDUCTION, *[LEGACY][: "reduce" in names]]
    parts = {
        "Parameters": "\n".join(parameters),
        "Returns": shared["Returns"],
        "Raises": shared["Raises"],
        "Notes": (LEARNED if thresholds else "") + shared["Notes"],
        "References": shared["References"],
        "Examples": own["Examples"],
    }
    about = shared[""].split("\n\n", 1)[1].strip()
    head = [own[""].strip(), CALL.format(name=function.__name__), about]
    body = [f"{name}\n{'-' * len(name)}\n{text.strip()}" for name, text in parts.items()]
    return "\n\n".join(head + body) + "\n"
