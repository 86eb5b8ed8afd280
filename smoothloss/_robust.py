"""Loss, influence, weight and curvature of a loss as functions of the residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from . import _tuning
from ._engine import inputs
from ._engine.arguments import bind, unknown
from ._engine.exportable import losses
from ._engine.kernel import Kernel
from ._engine.kind import Kind
from ._engine.term import term
from ._exportable import active
from ._loss import Loss
from ._modules import LossModule
from ._traits import Traits
from ._types import Array, Parameter


def record_and_thresholds(
    function: str, loss: object, given: Mapping[str, Any], others: Sequence[str] = ()
) -> tuple[Loss, dict[str, Any]]:
    """The record of a function, record, class, instance or norm, and its thresholds by name.

    ``others`` are the further arguments of the function.
    """
    record = loss if isinstance(loss, Loss) else getattr(loss, "loss", None)
    if not isinstance(record, Loss):
        got = getattr(loss, "__name__", loss)
        if callable(loss) and getattr(loss, "__module__", "builtins") != "builtins":
            got = f"{loss.__module__}.{got}"  # others may have the names of ours
        raise TypeError(
            f"{function}: `loss` is {got!r}; expected a loss of "
            f"smoothloss, or a Loss of your own. Pass one, as in {function}(smoothloss.huber_loss)."
        )
    for name in given:
        if name not in record.threshold_names:
            raise unknown(function, name, (*record.threshold_names, *others))
    held = loss.thresholds if isinstance(loss, LossModule | RobustNorm) else {}
    *values, _ = bind(function, record.thresholds, (), {**held, **given}, "none")
    for spec, value in zip(record.thresholds, values, strict=True):
        if not isinstance(value, mx.array | np.ndarray):
            spec.checked(function, value, mx.float64)
    return record, dict(zip(record.threshold_names, values, strict=True))


class RobustNorm:
    r"""Loss, influence, weight and curvature of a loss as functions of the residual.

    .. math:: \psi(r) = \rho'(r) \qquad w(r) = \frac{\psi(r)}{r} \qquad \psi'(r) = \rho''(r)

    psi, the influence function, is the force with which a residual pulls. The weight is what the
    residual counts in a weighted least squares with the same solution, which iteratively reweighted
    least squares (IRLS) uses. psi' is the curvature. The class is like ``RobustNorm`` of
    statsmodels, but the residual is ``predictions - targets``; the sign matters for the quantile
    losses alone.

    Parameters
    ----------
    loss : callable
        A loss: a function such as ``sl.huber_loss``, a :class:`Loss`, a class such as
        ``sl.HuberLoss``, or an instance of it or another norm, whose thresholds are then the
        defaults.
    **thresholds : float or mx.array
        Thresholds by name, each in the units that it has in the loss. The default is that of the
        loss. An array broadcasts to the residuals and is differentiable.

    Attributes
    ----------
    thresholds : dict
        The thresholds by name.
    traits : Traits
        Facts about the loss for these thresholds, which must be numbers.

    Raises
    ------
    TypeError
        If ``loss`` is no loss, or has no such threshold, or needs one that is not given.
    ValueError
        If a number is no valid threshold.

    Notes
    -----
    All are elementwise, computed in float32 for half types, and NaN at NaN. rho and psi have their
    derivatives by hand under every transform; MLX differentiates the weight. As in statsmodels,
    calling the norm is rho, ``weights`` is weight and ``psi_deriv`` is psi_prime. The error bounds
    of rho and psi are those of the loss; the weight, whose product with r is psi within 8 ulp, is
    tested to be finite or the limit at r = 0 (inf for L1).

    References
    ----------
    .. [1] P. W. Holland, R. E. Welsch, "Robust Regression Using Iteratively Reweighted
       Least-Squares", Communications in Statistics - Theory and Methods 6(9), 1977.
       https://doi.org/10.1080/03610927708827533

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> norm = sl.RobustNorm(sl.huber_loss, delta=2.0)
    >>> norm
    RobustNorm(huber_loss, delta=2.0)
    >>> r = mx.array([0.0, 1.0, -4.0])
    >>> norm.rho(r)
    array([0, 0.5, 6], dtype=float32)
    >>> norm.psi(r)
    array([0, 1, -2], dtype=float32)
    >>> norm.weight(r)
    array([1, 1, 0.5], dtype=float32)
    >>> norm.psi_prime(r)
    array([1, 1, 0], dtype=float32)
    """

    def __init__(self, loss: Callable[..., Any], **thresholds: Parameter) -> None:
        self.loss, self.thresholds = record_and_thresholds("RobustNorm", loss, thresholds)

    def __repr__(self) -> str:
        words = [self.loss.name, *(f"{k}={v}" for k, v in self.thresholds.items())]
        return f"RobustNorm({', '.join(words)})"

    @property
    def traits(self) -> Traits:
        """Facts about the loss for these thresholds: convex, redescending, bound of psi, kinks."""
        for name, value in self.thresholds.items():
            if isinstance(value, mx.array | np.ndarray):
                raise TypeError(
                    f"RobustNorm: `{name}` is an array; expected a number, to ask for traits. Make "
                    f"a norm for each value."
                )
        return self.loss.traits.at(*self.thresholds.values())

    def efficiency(self) -> float:
        r"""Return how much of normal data the estimate uses, in the limit of many: 0 to 1.

        .. math:: \frac{(E\,\psi'(r))^2}{E\,\psi(r)^2} \qquad r \sim N(0, 1)

        It is the variance of the mean over that of the estimate of a location, and of least squares
        over that of the regression. The thresholds are in standard deviations of the errors.

        Returns
        -------
        float
            The efficiency; NaN where psi is 0, as of Huber at ``delta=0``.

        Raises
        ------
        TypeError
            If a threshold is an array.
        ValueError
            If the loss is not even.

        Notes
        -----
        By quadrature in float64, for which psi is split at the kinks of the traits: good to 1e-10
        where they are known or psi is smooth, and to 1e-5 at a kink that a loss of your own does
        not name.

        Examples
        --------
        >>> import smoothloss as sl
        >>> sl.RobustNorm(sl.l1_loss).efficiency()  # 2/pi
        0.63661977...
        """
        return _tuning.efficiency(self)

    def tuning(self, efficiency: float = 0.95, threshold: str | None = None) -> float:
        r"""Return the threshold at which the loss has an efficiency at normal data.

        It is in standard deviations of the errors: multiply it with a robust scale such as
        :func:`mad`, or pass it to :func:`irls`, which measures residuals by one.

        Parameters
        ----------
        efficiency : float, default 0.95
            The efficiency, above 0 and below 1. See :meth:`efficiency`.
        threshold : str, optional
            The name of the threshold, where the loss has several in units of the residual. The
            others stay as they are in this norm.

        Returns
        -------
        float
            The threshold. Of several, the largest.

        Raises
        ------
        TypeError
            If another threshold is an array.
        ValueError
            If no threshold reaches the efficiency, the loss has none to tune, or it is not even.

        Notes
        -----
        Other libraries write some losses with a threshold that is a multiple of ours: the Cauchy
        loss of MATLAB and SciPy is :math:`\log(1 + (r/c)^2)` with c = 2.385, which is ours at
        :math:`c/\sqrt2` = 1.686; the Welsch loss of MATLAB has c = 2.985, ours 2.11.

        Examples
        --------
        >>> import smoothloss as sl
        >>> round(sl.RobustNorm(sl.huber_loss).tuning(), 4)
        1.345
        >>> round(sl.RobustNorm(sl.cauchy_loss).tuning() * 2**0.5, 4)
        2.3849
        >>> round(sl.RobustNorm(sl.huber_loss).tuning(0.9), 4)
        0.9818
        """
        return _tuning.tuning(self, efficiency, threshold)

    @property
    def _member(self) -> Loss:
        return self.loss.member(list(self.thresholds.values()))[0]

    def rho(self, r: Array) -> mx.array:
        """Return the loss of each residual, as calling the norm does."""
        return self._at(self._member.kernel, r)

    __call__ = rho

    def psi(self, r: Array) -> mx.array:
        """Return the influence, the derivative of rho."""
        return self._at(self._member.kernel.partial(0), r)

    def psi_prime(self, r: Array) -> mx.array:
        """Return the curvature, the derivative of psi."""
        return self._at(self._member.kernel.partial(0).partial(0), r)

    def weight(self, r: Array) -> mx.array:
        """Return psi(r)/r, with its limit at r = 0."""
        return self._at(self._member.weight_kernel, r)

    # The names of statsmodels.
    psi_deriv = psi_prime
    weights = weight

    def _at(self, kernel: Kernel, r: Array) -> mx.array:
        x, _, dtype, compute = inputs.data("RobustNorm", ("r", "r"), r, r)
        member, values = self.loss.member(list(self.thresholds.values()))
        theta, checks = inputs.thresholds("RobustNorm", member.thresholds, values, x.shape, compute)
        arrays: list[Any] = [
            inputs.scalar(v, compute, True) if isinstance(v, float) else v for v in theta
        ]
        if active():
            return losses(kernel, x.astype(compute), arrays, checks).astype(dtype)
        return term(kernel, Kind(compute, None, checks), dtype)(x.astype(compute), *arrays)
