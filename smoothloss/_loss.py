"""The record of a loss: its formulas, and the call that evaluates them."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import mlx.core as mx

from ._engine import inputs
from ._engine.arguments import bind, known_keywords, signature, unknown
from ._engine.kernel import Kernel, tree, weight_of
from ._engine.mean import mean
from ._engine.term import compute_dtype, term
from ._threshold import Threshold
from ._traits import Traits
from ._types import Array, Axis, Formula, Parameter, Reduction

F = TypeVar("F", bound=Callable[..., Any])

RESERVED = (
    "r",
    "predictions",
    "inputs",
    "targets",
    "reduction",
    "weights",
    "where",
    "axis",
    "loss",
)


class Caller(NamedTuple):
    """Who calls, and how it names its data: what errors say."""

    name: str
    data: tuple[str, str] = ("predictions", "targets")


@dataclass(frozen=True, eq=False, repr=False)
class Loss:
    r"""A loss, made of its rho. Calling it evaluates it, as the losses of this library are called.

    Only rho is required: a function of the residual r = predictions - targets and the thresholds.
    The loss then has everything that ours have: ``weights``, ``where``, ``axis``, reductions, all
    dtypes, thresholds that are numbers or arrays, accurate sums, and every MLX transform at first
    and second order.

    Derivatives are used where they are given, and taken by MLX where they are not. Those that MLX
    takes are right where rho is smooth and finite. At kinks, at infinite residuals, at limits of
    thresholds and at NaN they may be wrong or NaN, and so is the second derivative at r = 0 of a
    rho written with ``mx.abs``. Gradients of weights and of thresholds that broadcast are summed in
    plain float32, and the backward pass is slower. :func:`check_loss` compares derivatives that
    are given with finite differences.

    Parameters
    ----------
    name : str
        The name, which errors show.
    rho : callable
        ``rho(r, *thresholds)``, elementwise, with the thresholds in order. It is called with
        arrays that broadcast, all of float32 or all of float64: half types are computed in float32
        and rounded once. It should be nonnegative and 0 at r = 0.
    thresholds : sequence of Threshold, default ()
        The thresholds, in the order of the arguments.
    psi : callable, optional
        The derivative of rho by r, with the arguments of rho.
    psi_prime : callable, optional
        The derivative of psi by r. It needs psi.
    partials : mapping, optional
        The other derivatives by what they are taken by: ``{"delta": ...}`` is that of rho by delta,
        ``{("r", "delta"): ...}`` that of psi by delta, ``{("delta", "delta"): ...}`` the second by
        delta. The order of the two names does not matter.
    weight : callable, optional
        The weight function psi(r)/r with its limit at r = 0, as iterative reweighting needs it. By
        default it is computed from psi and psi_prime.
    reduction : {"none", "mean", "sum"}, default "mean"
        The default reduction of a call.
    traits : Traits, optional
        Facts about the loss, such as whether it is convex.
    data_names : tuple of str, default ("predictions", "targets")
        The names of the two data arguments.

    Raises
    ------
    TypeError
        If a formula is not callable.
    ValueError
        If a threshold's name is taken, or if a derivative is given by a name that is no threshold,
        or a second one without the first.

    Notes
    -----
    A call takes ``(predictions, targets, *thresholds, reduction=..., weights=..., where=...,
    axis=...)`` as :func:`huber_loss` does, with the same results, errors and guarantees: an invalid
    number raises, an invalid element of an array gives NaN, and elements that ``where`` leaves out
    never show. Records are compared by identity.

    References
    ----------
    .. [1] P. J. Huber, E. M. Ronchetti, "Robust Statistics", 2nd ed., Wiley, 2009.
       https://doi.org/10.1002/9780470434697

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> fair = sl.Loss(
    ...     "fair_loss",
    ...     lambda r, c: c * mx.abs(r) - c * c * mx.log1p(mx.abs(r) / c),
    ...     thresholds=[sl.Threshold("c", default=1.0, open_low=True)],
    ...     psi=lambda r, c: r / (1 + mx.abs(r) / c),
    ... )
    >>> x, y = mx.array([0.0, 1.0, -3.0]), mx.zeros(3)
    >>> fair(x, y, c=2.0, reduction="none")
    array([0, 0.37814, 2.33484], dtype=float32)
    >>> mx.grad(fair)(x, y, c=2.0, reduction="sum")
    array([0, 0.666667, -1.2], dtype=float32)
    >>> sl.check_loss(fair)
    """

    name: str
    rho: Formula
    thresholds: Sequence[Threshold] = field(default=(), kw_only=True)
    psi: Formula | None = field(default=None, kw_only=True)
    psi_prime: Formula | None = field(default=None, kw_only=True)
    partials: Mapping[str | tuple[str, ...], Formula] = field(default_factory=dict, kw_only=True)
    weight: Formula | None = field(default=None, kw_only=True)
    reduction: Reduction = field(default="mean", kw_only=True)
    traits: Traits = field(default_factory=Traits, kw_only=True)
    data_names: tuple[str, str] = field(default=("predictions", "targets"), kw_only=True)
    function: Callable[..., mx.array] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        inputs.check_reduction("Loss", self.reduction)
        for name in self.threshold_names:
            if name in RESERVED or self.threshold_names.count(name) > 1:
                raise ValueError(
                    f"Loss: a threshold is called `{name}`, which is taken; expected a name of its "
                    f"own, none of {', '.join(RESERVED)}. Rename it."
                )
        given = {"psi": self.psi, "psi_prime": self.psi_prime, "weight": self.weight}
        formulas: dict[Any, object] = {"rho": self.rho, **self.partials}
        formulas |= {key: formula for key, formula in given.items() if formula is not None}
        for key, formula in formulas.items():
            if not callable(formula):
                raise TypeError(
                    f"Loss: `{key}` of {self.name} is of type {type(formula).__name__}; expected a "
                    f"function of (r, *thresholds) that returns an array. Pass one."
                )
        _ = self.derivatives  # whose names are checked

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """The names of the thresholds, in order."""
        return tuple(t.name for t in self.thresholds)

    @functools.cached_property
    def derivatives(self) -> dict[tuple[str, ...], Formula]:
        """Every derivative of rho that is given, by the names it is taken by: "r", thresholds."""
        names = ("r", *self.threshold_names)
        given: dict[Any, Formula | None] = {("r",): self.psi, ("r", "r"): self.psi_prime}
        given |= self.partials
        found: dict[tuple[str, ...], Formula] = {}
        for key, formula in given.items():
            if formula is None:
                continue
            by = (key,) if isinstance(key, str) else tuple(key)
            if not 1 <= len(by) <= 2 or not set(by) <= set(names):
                raise ValueError(
                    f"Loss: `partials` of {self.name} has the key {key!r}; expected one or two of "
                    f"{', '.join(map(repr, names))}. Correct the names."
                )
            found[tuple(sorted(by, key=names.index))] = formula
        for by in found:
            if any((name,) not in found for name in by):
                raise ValueError(
                    f"Loss: the second derivative of {self.name} by {' and '.join(by)} is given "
                    f"without the first ones; expected both. Give the first derivatives too, or "
                    f"leave both to MLX."
                )
        return found

    @functools.cached_property
    def kernel(self) -> Kernel:
        """Rho with the tree of its partial derivatives."""
        return tree(self.rho, ("r", *self.threshold_names), self.derivatives)

    @functools.cached_property
    def weight_kernel(self) -> Kernel:
        """The weight function, which has no derivative by hand: reweighting takes none."""
        return weight_of(self.kernel) if self.weight is None else Kernel(self.weight)

    def __call__(
        self,
        predictions: Array,
        targets: Array,
        *thresholds: Any,
        reduction: Reduction | None = None,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
        **named: Any,
    ) -> mx.array:
        """Return the loss. The reduction may follow the thresholds by position."""
        if reduction is not None:
            named["reduction"] = reduction
        for keyword in named:
            if keyword not in self.__signature__.parameters:
                raise unknown(self.name, keyword, self.__signature__.parameters)
        *values, chosen = bind(self.name, self.thresholds, thresholds, named, self.reduction)
        return self.evaluate(
            Caller(self.name, self.data_names),
            predictions,
            targets,
            values,
            chosen,
            weights,
            where,
            axis,
        )

    def evaluate(
        self,
        caller: Caller,
        predictions: object,
        targets: object,
        thresholds: Sequence[object],
        reduction: str,
        weights: object,
        where: object,
        axis: object,
    ) -> mx.array:
        """Validate, promote, apply the loss elementwise, reduce.

        Every function, class and record of the library calls this; ``caller`` is who the errors
        name.
        """
        name = caller.name
        x, y, dtype = inputs.data(name, caller.data, predictions, targets)
        axes = inputs.axes(name, reduction, axis, x.ndim)
        compute = compute_dtype(x, y)
        theta, checks = inputs.thresholds(name, self.thresholds, thresholds, x.shape, compute)
        w = inputs.weighting(name, weights, x.shape, compute)
        mask = inputs.selection(name, where, x.shape)
        row = (x, y, *theta, *(v for v in (w, mask) if v is not None))
        masked = mask is not None
        if reduction == "none":
            return term(self.kernel, checks, masked, dtype)(*row)
        # Reductions take the losses as computed; half types are rounded once, at the end.
        out = term(self.kernel, checks, masked, compute, axes)(*row)
        if reduction == "mean":
            out = mean(out, x.shape, axes, w, mask)
        return out.astype(dtype)

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        """What ``inspect.signature`` and ``help`` show: that of a function of this loss."""
        return signature(self.data_names, self.thresholds, self.reduction)

    def __repr__(self) -> str:
        return f"<Loss {self.name}({', '.join(self.threshold_names)})>"

    def __copy__(self) -> Loss:
        return self

    def __deepcopy__(self, _: Any) -> Loss:
        return self

    def __reduce__(self) -> Any:
        # The public function is pickled by its name, and carries the record.
        if self.function is not None:
            return operator.attrgetter("loss"), (self.function,)
        return super().__reduce__()


def loss_function(loss: Loss) -> Callable[[F], F]:
    """Make a function the public one of a loss.

    It carries the record as ``loss``. A wrong keyword raises an error that names ours.
    """

    def decorate(function: F) -> F:
        call: Any = known_keywords(loss.name)(function)
        call.loss = loss
        object.__setattr__(loss, "function", call)
        return cast(F, call)

    return decorate
