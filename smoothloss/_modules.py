"""The losses as modules of ``mlx.nn``, and thresholds that are learned."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from . import _inputs
from ._docstrings import of_module
from ._evaluate import evaluate
from ._inputs import Array, Axis, Parameter, Reduction
from ._learned import Learned
from ._loss import Loss, Threshold, is_number

Learnable: TypeAlias = "Parameter | Learned"
"""A threshold of a module. Numbers and NumPy arrays are fixed, the rest is trained."""


class LossModule(Module):
    """A loss with its settings kept.

    A class derived from it names its thresholds, as the attributes that its ``__init__`` sets; the
    record of its function does the rest.
    """

    reduction: Reduction
    _function: ClassVar[Callable[..., mx.array]]
    _loss: ClassVar[Loss]

    def __init_subclass__(
        cls, *, function: Callable[..., mx.array] | None = None, loss: Loss | None = None
    ) -> None:
        super().__init_subclass__()
        if function is not None and loss is not None:  # not for those that users derive
            cls._function, cls._loss = staticmethod(function), loss
            cls.__doc__ = of_module(cls, function)

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reduction = reduction

    def __setattr__(self, name: str, value: Any) -> None:
        for spec in self._loss.thresholds:
            if spec.name == name:
                _check(type(self).__name__, spec, value)
        if name == "reduction":
            _inputs.check_reduction(type(self).__name__, value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        names = [*(spec.name for spec in self._loss.thresholds), "reduction"]
        words = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({', '.join(words)})"

    def __call__(
        self,
        predictions: Array,
        targets: Array,
        *,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
    ) -> mx.array:
        """Return the loss, as the function of that name does."""
        held = {spec.name: getattr(self, spec.name) for spec in self._loss.thresholds}
        theta = {n: v.value if isinstance(v, Learned) else v for n, v in held.items()}
        return evaluate(
            type(self).__name__,
            self._loss,
            {"predictions": predictions, "targets": targets},
            theta,
            self.reduction,
            weights,
            where,
            axis,
        )


def _check(module: str, spec: Threshold, value: object) -> None:
    if isinstance(value, Learned):
        if not spec.low <= value.low <= value.high <= spec.high:
            raise ValueError(
                f"{module}: `{spec.name}` is learned in ({value.low:g}, {value.high:g}); expected "
                f"a range inside {spec.interval}. Pass Learned(..., low=..., high=...)."
            )
    elif isinstance(value, mx.array):
        _inputs.floating(module, spec.name, value)
    elif isinstance(value, np.ndarray):
        _inputs.as_array(module, spec.name, value)
    elif is_number(value) or isinstance(value, str):
        spec.checked(module, value, mx.float64)  # of a text, that it may be the reduction
    else:
        raise TypeError(
            f"{module}: `{spec.name}` is of type {type(value).__name__}; expected a number or "
            f"np.array, which are fixed, or an mx.array or Learned, which are trained. Pass "
            f"several fixed values as np.array([...])."
        )


def legacy(
    module: str, reduction: Reduction, size_average: bool | None, reduce: bool | None
) -> Reduction:
    """The reduction that PyTorch's two old arguments ask for; if given, they win over it."""
    given = {"size_average": size_average, "reduce": reduce}
    if all(value is None for value in given.values()):
        return reduction
    for name, value in given.items():
        if value is not None and not isinstance(value, bool | np.bool_):
            raise TypeError(
                f"{module}: `{name}` is of type {type(value).__name__}; expected True, False or "
                f"None. Pass reduction='mean', 'sum' or 'none' instead."
            )
    meant: Reduction = "mean" if size_average is None or size_average else "sum"
    if reduce is not None and not reduce:
        meant = "none"
    warnings.warn(
        f"{module}: size_average and reduce are deprecated; use reduction={meant!r} instead.",
        DeprecationWarning,
        stacklevel=3,
    )
    return meant
