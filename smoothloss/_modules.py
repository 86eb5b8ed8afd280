"""The losses as modules of ``mlx.nn``."""

from __future__ import annotations

import sys
import warnings
from typing import Any, ClassVar, TypeAlias, overload

import mlx.core as mx
import numpy as np

from ._engine import inputs
from ._engine.arguments import DATA, bind, two_arrays, unknown
from ._engine.evaluate import Caller, evaluate
from ._frozen import PartlyFrozen
from ._learned import Learned
from ._loss import Loss
from ._threshold import Threshold, is_number
from ._types import Array, Axis, Parameter, Reduction

Learnable: TypeAlias = Parameter | Learned
"""A threshold of a module. Only ``Learned`` is trained."""


class LossModule(PartlyFrozen):
    """The base class of losses as modules: a loss with its thresholds and reduction kept.

    A class derived from it names a :class:`Loss`, and that is enough: ``__init__`` takes the
    thresholds and the reduction. Write an ``__init__`` of your own that passes them on if editors
    should show the arguments.

    Parameters
    ----------
    *arguments, **named : float, mx.array or Learned
        The thresholds of the loss, by position or by name, which become attributes. Each has the
        default of the loss.
    reduction : {"none", "mean", "sum"}, default "mean"
        What a call returns: one loss per element, their mean, or their sum. By position it follows
        the thresholds.

    Attributes
    ----------
    loss : Loss
        The record of the loss, an attribute of the class.
    thresholds : dict
        The present thresholds by name, those that are learned by their value.

    Raises
    ------
    TypeError
        If the class names no loss, or the loss has no such threshold, or a threshold is neither a
        real number nor an array.
    ValueError
        If a threshold or the reduction is not valid.

    Notes
    -----
    The arguments are attributes, which may be set at any time and are checked as they are set. To
    change a threshold between the calls of a compiled step, as by a schedule, make it an
    ``mx.array`` and pass the ``state`` of the module, or of the model that holds it, to
    ``mx.compile``: the step follows what is set. The array is among ``parameters()``, so it is
    saved, loaded and cast with the model, but it is never trained, not even after ``unfreeze()``.

    Only :class:`Learned` is trained. A loss that has no minimum in the threshold warns then.

    A number or a NumPy array is no parameter. It is a constant of a compiled step, as the
    reduction is, and read when the step is traced. Do not pass a compiled step a new Python float
    each time, either: MLX traces it anew for each and keeps them all, 27 kB apiece, and a call
    slows down from 0.6 ms to 2 ms after 20,000. Pass an array.

    References
    ----------
    .. [1] MLX, "Neural Networks", https://ml-explore.github.io/mlx/build/html/python/nn.html

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> arctan = sl.Loss(
    ...     "arctan_loss",
    ...     lambda r, scale: mx.arctan(mx.square(r / scale)),
    ...     thresholds=[sl.Threshold("scale", default=1.0, open_low=True)],
    ... )
    >>> class ArctanLoss(sl.LossModule):
    ...     loss = arctan
    >>> loss = ArctanLoss(scale=2.0)
    >>> loss
    ArctanLoss(scale=2.0, reduction='mean')
    >>> loss(mx.array([1.0, -2.0]), mx.zeros(2))
    array(0.515188, dtype=float32)

    A schedule, of which the step is compiled once:

    >>> loss.scale = mx.array(2.0)
    >>> step = mx.compile(lambda x: loss(x, mx.zeros(2)), inputs=loss.state)
    >>> for scale in (2.0, 1.0):
    ...     loss.scale = mx.array(scale)
    ...     print(step(mx.array([1.0, -2.0])))
    array(0.515188, dtype=float32)
    array(1.05561, dtype=float32)
    """

    loss: ClassVar[Loss]
    reduction: Reduction

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        given = cls.__dict__.get("loss")
        record = getattr(given, "loss", None)
        if isinstance(record, Loss):  # the function in place of its record
            cls.loss = record

    def __init__(self, *arguments: Any, **named: Any) -> None:
        name, record = type(self).__name__, getattr(type(self), "loss", None)
        if not isinstance(record, Loss):
            raise TypeError(
                f"{name}: the class names no loss; expected an attribute `loss` that is a Loss. "
                f"Write `loss = ...` in the body of the class."
            )
        super().__init__()  # type: ignore[no-untyped-call]
        *values, self.reduction = bind(name, record.thresholds, arguments, named, "mean")
        for threshold, value in zip(record.threshold_names, values, strict=True):
            setattr(self, threshold, value)

    def __setattr__(self, name: str, value: Any) -> None:
        for spec in self.loss.thresholds:
            if spec.name == name:
                _check(type(self).__name__, spec, value)
                self._no_grad.discard(name)  # of an array before it
                if isinstance(value, Learned):
                    _prepare(type(self).__name__, spec, value)
        if name == "loss":
            raise AttributeError(
                f"{type(self).__name__}: `loss` belongs to the class; expected no other one of an "
                f"instance. Derive a class from LossModule."
            )
        if name == "reduction":
            inputs.check_reduction(type(self).__name__, value)
        super().__setattr__(name, value)

    def _always_frozen(self) -> set[str]:
        return {n for n in self.loss.threshold_names if isinstance(self.get(n), mx.array)}

    def __repr__(self) -> str:
        names = [*self.loss.threshold_names, "reduction"]
        words = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def thresholds(self) -> dict[str, Parameter]:
        """The present thresholds by name, those that are learned by their value."""
        held = {name: getattr(self, name) for name in self.loss.threshold_names}
        return {n: v.value if isinstance(v, Learned) else v for n, v in held.items()}

    @overload
    def __call__(
        self,
        predictions: Array,
        targets: Array,
        *,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
    ) -> mx.array: ...

    @overload
    def __call__(
        self,
        *,
        inputs: Array,
        targets: Array,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
    ) -> mx.array: ...

    def __call__(
        self,
        *data: Array,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
        **named: Array,
    ) -> mx.array:
        """Return the loss of ``(predictions, targets)``; ``inputs`` is another name for the first.

        ``weights``, ``where`` and ``axis`` are those of the function of the loss.
        """
        name = type(self).__name__
        for keyword in named:
            if keyword in (*self.loss.threshold_names, "reduction"):
                raise TypeError(
                    f"{name}: a call does not take `{keyword}`; expected predictions, targets, "
                    f"weights, where, axis. Pass it to {name}(...), or set it as an attribute."
                )
            if keyword not in (*DATA, "targets"):
                raise unknown(name, keyword, ("predictions", "targets", "weights", "where", "axis"))
        x, y, rest = two_arrays(name, ("predictions", "targets"), data, named)
        if rest:
            raise TypeError(
                f"{name}: {len(data)} arguments were given by position; expected two arrays, "
                f"predictions and targets. Pass the rest by keyword."
            )
        held = list(self.thresholds.values())
        return evaluate(self.loss, Caller(name), x, y, held, self.reduction, weights, where, axis)


def _check(module: str, spec: Threshold, value: object) -> None:
    if isinstance(value, Learned):
        if not spec.low <= value.low <= value.high <= spec.high:
            raise ValueError(
                f"{module}: `{spec.name}` is learned in ({value.low:g}, {value.high:g}); expected "
                f"a range inside {spec.interval}. Pass Learned(..., low=..., high=...)."
            )
    elif isinstance(value, mx.array | np.ndarray):
        inputs.as_array(module, spec.name, value)
    elif is_number(value) or isinstance(value, str):
        spec.checked(module, value, mx.float64)  # of a text, that it may be the reduction
    else:
        raise TypeError(
            f"{module}: `{spec.name}` is of type {type(value).__name__}; expected a number, an "
            f"array, or Learned, which alone is trained. Pass several values as mx.array([...])."
        )


def _prepare(module: str, spec: Threshold, value: Learned) -> None:
    """Warn if the loss has no minimum in a threshold, and keep it from 0 if it has one."""
    if not spec.learnable:
        _warn(
            f"{module}: `{spec.name}` is Learned, but the loss has no minimum in it, so training "
            f"takes it to a bound. Use AdaptiveLoss, whose alpha and scale have one, or train it "
            f"against a loss of validation data, and silence this with "
            f"warnings.filterwarnings('ignore', '.*no minimum')."
        )
    elif spec.has_residual_units:
        value._lift()


def _warn(message: str) -> None:
    """Warn of the line outside of this package that made or set a module."""
    level, frame = 1, sys._getframe()
    package = f"{__package__}."
    while frame.f_back and frame.f_globals["__name__"].startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def legacy(
    module: str, reduction: Reduction, size_average: bool | None, reduce: bool | None
) -> Reduction:
    """The reduction that PyTorch's two deprecated arguments ask for; they win over it."""
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
        stacklevel=4,
    )
    return meant
