"""The record of a loss: its formulas, and the call that evaluates them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, overload

import mlx.core as mx

from ._engine import validation
from ._engine.arguments import DATA, bind, known_keywords, signature, two_arrays, unknown
from ._engine.evaluate import Caller, evaluate
from ._engine.kernel import Kernel, tree, weight_of
from ._engine.plan import Plan
from ._threshold import Threshold, as_float, is_number
from ._traits import Traits
from ._types import Array, Axis, Formula, Parameter, Reduction

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False, repr=False)
class Loss:
    r"""A loss, made of its rho. Calling it evaluates it, as the losses of this library are called.

    Only rho is required: a function of the residual r = predictions - targets and the thresholds.
    The loss then has everything that ours have: ``weights``, ``where``, ``axis``, reductions, all
    dtypes, thresholds that are numbers or arrays, accurate sums, and every MLX transform at first
    and second order.

    A formula must be elementwise, return an array or a number, and give NaN for a NaN residual:
    take care with ``mx.sign``, which is 0 there, and with comparisons, which are False. It needs
    functions of ``mlx.core``. In float64, ``mx.exp``, ``mx.sigmoid``, ``mx.logaddexp``, ``mx.erf``
    and ``mx.sin`` are good to about 1e-7 only, on the CPU.

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
    thresholds : list of Threshold, default []
        The thresholds, in the order of the arguments. A name that ``mlx.nn.Module`` has, or that is
        another argument, is taken.
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
    closed_forms : mapping, optional
        Simpler losses of the thresholds from the second on, by the numbers of the first for which
        this loss is one of them: ``{0.0: cauchy}``.
    ordinary : mapping, optional
        Formulas of "rho" and "psi" that give the same, to the bit, in fewer operations where every
        threshold is an ordinary number: above 0, normal, and finite.
    plain : callable, optional
        The same as rho, where every threshold is an ordinary number, in a form of which MLX's own
        first and second derivatives by r are right. There, :func:`exportable` uses it in place of
        the form that it makes of the derivatives, which costs more.
    reduction : {"none", "mean", "sum"}, default "mean"
        The default reduction of a call.
    traits : Traits, optional
        Facts about the loss, such as whether it is convex.
    data_names : tuple of str, default ("predictions", "targets")
        The names of the two data arguments.

    Raises
    ------
    TypeError
        If a part is not of its type, or a formula is no function. When the loss is called, if a
        formula returns no array.
    ValueError
        If a threshold's name is taken, or if a derivative is given by a name that is no threshold,
        or twice, or a second one without the first ones.

    Notes
    -----
    A call takes ``(predictions, targets, *thresholds, reduction=..., weights=..., where=...,
    axis=...)`` as :func:`huber_loss` does, with the same results, errors and guarantees: an invalid
    number raises, an invalid element of an array gives NaN, and elements that ``where`` leaves out
    never show. Records are compared by identity; copies are the record itself. A record is pickled
    with its formulas, so these must be functions of a module, not lambdas.

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

    Two thresholds, and every first derivative:

    >>> def psi(r, low, high):
    ...     return mx.where(r < 0, low, high) * r
    >>> lopsided = sl.Loss(
    ...     "lopsided_loss",
    ...     lambda r, low, high: 0.5 * r * psi(r, low, high),
    ...     thresholds=[
    ...         sl.Threshold("low", default=1.0, has_residual_units=False),
    ...         sl.Threshold("high", default=2.0, has_residual_units=False),
    ...     ],
    ...     psi=psi,
    ...     partials={
    ...         "low": lambda r, low, high: 0.5 * mx.square(mx.minimum(r, 0)),
    ...         "high": lambda r, low, high: 0.5 * mx.square(mx.maximum(r, 0)),
    ...     },
    ...     traits=sl.Traits(convex=True, even=False, minimum=0.0),
    ... )
    >>> sl.check_loss(lopsided)
    >>> lopsided(x, y, high=4.0, reduction="none")
    array([0, 2, 4.5], dtype=float32)
    """

    name: str
    rho: Formula
    thresholds: Sequence[Threshold] = field(default=(), kw_only=True)
    psi: Formula | None = field(default=None, kw_only=True)
    psi_prime: Formula | None = field(default=None, kw_only=True)
    partials: Mapping[str | tuple[str, ...], Formula] = field(default_factory=dict, kw_only=True)
    weight: Formula | None = field(default=None, kw_only=True)
    closed_forms: Mapping[float, Loss] = field(default_factory=dict, kw_only=True)
    ordinary: Mapping[str, Formula] = field(default_factory=dict, kw_only=True)
    plain: Formula | None = field(default=None, kw_only=True)
    reduction: Reduction = field(default="mean", kw_only=True)
    traits: Traits = field(default_factory=Traits, kw_only=True)
    data_names: tuple[str, str] = field(default=("predictions", "targets"), kw_only=True)
    function: Callable[..., mx.array] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        validation.check(self)
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        _ = self.derivatives  # whose names are checked

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """The names of the thresholds, in order."""
        return tuple(t.name for t in self.thresholds)

    @functools.cached_property
    def derivatives(self) -> dict[tuple[str, ...], Formula]:
        """Every derivative of rho that is given, by the names it is taken by: "r", thresholds."""
        given = {("r",): self.psi, ("r", "r"): self.psi_prime, **self.partials}
        return validation.derivatives(self.name, ("r", *self.threshold_names), given)

    def member(self, thresholds: Sequence[Any]) -> tuple[Loss, Sequence[Any]]:
        """The loss that this one is for these thresholds, and the thresholds that it has."""
        if self.closed_forms and is_number(thresholds[0]):
            closed = self.closed_forms.get(as_float(thresholds[0]))
            if closed is not None:
                return closed, thresholds[1:]
        return self, thresholds

    @functools.cached_property
    def kernel(self) -> Kernel:
        """Rho with the tree of its partial derivatives."""
        names = ("r", *self.threshold_names)
        fast = {"rho": (), "psi": ("r",)}
        ordinary = {fast[name]: formula for name, formula in self.ordinary.items()}
        return tree(self.rho, names, self.derivatives, ordinary, self.plain)

    @functools.cached_property
    def weight_kernel(self) -> Kernel:
        """The weight function, which has no derivative by hand: reweighting takes none."""
        return weight_of(self.kernel) if self.weight is None else Kernel(self.weight)

    @overload
    def __call__(
        self,
        predictions: Array,
        targets: Array,
        *thresholds: Parameter | Reduction,
        reduction: Reduction = ...,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
        **named: Parameter,
    ) -> mx.array: ...

    @overload
    def __call__(self, **named: Any) -> mx.array: ...

    def __call__(
        self,
        *given: Any,
        weights: Parameter | None = None,
        where: Array | None = None,
        axis: Axis = None,
        **named: Any,
    ) -> mx.array:
        """Return the loss of ``(predictions, targets, *thresholds, reduction)``, then keywords."""
        if not named and len(given) == self._positional:  # as the public functions call it
            x, y, *values, reduction = given
        else:
            for keyword in named:
                if keyword not in self.__signature__.parameters and keyword not in DATA:
                    raise unknown(self.name, keyword, self.__signature__.parameters)
            x, y, rest = two_arrays(self.name, self.data_names, given, named)
            *values, reduction = bind(self.name, self.thresholds, rest, named, self.reduction)
        return evaluate(self, self._caller, x, y, values, reduction, weights, where, axis)

    @functools.cached_property
    def _positional(self) -> int:
        """How many arguments can be given by position."""
        return 3 + len(self.thresholds)

    @functools.cached_property
    def _caller(self) -> Caller:
        return Caller(self.name, self.data_names)

    @functools.cached_property
    def plans(self) -> dict[Any, Plan]:
        """The plan of each kind of call, made when it is first called."""
        return {}

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
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return functools.partial(Loss, **given), ()


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
