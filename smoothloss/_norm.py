"""A loss as robust statistics reads it: rho, psi, the weight function and psi'."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from . import _inputs
from ._catalog import catalog
from ._custom import compute_dtype, term
from ._inputs import Array, Parameter
from ._loss import Kernel


class RobustNorm:
    r"""The functions of one residual that a loss consists of.

    Near zero and in the tails they are those of the loss: with its rho,

    .. math:: \psi(r) = \rho'(r) \qquad w(r) = \frac{\psi(r)}{r} \qquad \psi'(r) = \rho''(r)

    psi, the influence function, says how strongly a residual pulls; the weight, what it counts in a
    weighted least squares that has the same solution (iteratively reweighted, IRLS); psi', the
    curvature. As ``RobustNorm`` of statsmodels, but for the residual
    ``predictions - targets``, which matters for the quantile losses alone.

    Parameters
    ----------
    loss : callable
        A loss of this library, as ``sl.huber_loss``.
    **thresholds : float or mx.array
        Its thresholds by name, in the units of the residual where the loss has them so; each has
        the default of the loss. An array broadcasts to the residuals and is differentiable.

    Raises
    ------
    TypeError
        If ``loss`` is no loss of this library, or has no such threshold.
    ValueError
        If a number is no valid threshold.

    Notes
    -----
    All are elementwise, computed in float32 for half types, and NaN at NaN. rho and psi have their
    derivatives by hand under every transform; that of the weight is MLX's. The error bounds of rho
    and psi are those of the loss; the weight, whose product with r is psi within 8 ulp, is tested
    to be finite or the limit at r = 0 (inf for L1).

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

    def __init__(self, loss: Callable[..., mx.array], **thresholds: Parameter) -> None:
        entry = next((e for e in catalog() if e.function is loss), None)
        if entry is None:
            raise TypeError(
                f"RobustNorm: `loss` is {getattr(loss, '__name__', loss)!r}; expected a loss of "
                f"smoothloss. Pass the function itself, as in RobustNorm(smoothloss.huber_loss)."
            )
        parameters = entry.signature.parameters
        given = {name: parameters[name].default for name in entry.threshold_names} | thresholds
        for name in thresholds:
            if name not in entry.threshold_names:
                known = ", ".join(entry.threshold_names) or "none"
                raise TypeError(
                    f"RobustNorm: `{name}` is no threshold of {entry.name}; expected {known}. "
                    f"Correct the name."
                )
        for spec in entry.loss.thresholds:
            if not isinstance(given[spec.name], mx.array | np.ndarray):
                spec.checked("RobustNorm", given[spec.name], mx.float64)
        self._entry = entry
        self.thresholds = given

    def __repr__(self) -> str:
        words = [self._entry.name, *(f"{k}={v}" for k, v in self.thresholds.items())]
        return f"RobustNorm({', '.join(words)})"

    def rho(self, r: Array) -> mx.array:
        """Return the loss of each residual."""
        return self._at(self._entry.loss.kernel, r)

    def psi(self, r: Array) -> mx.array:
        """Return the influence, the derivative of rho."""
        return self._at(self._entry.loss.kernel.partials[0], r)

    def psi_prime(self, r: Array) -> mx.array:
        """Return the curvature, the derivative of psi."""
        return self._at(self._entry.loss.kernel.partials[0].partials[0], r)

    def weight(self, r: Array) -> mx.array:
        """Return psi(r)/r, with its limit at r = 0."""
        return self._at(self._entry.loss.weight_kernel, r)

    def _at(self, kernel: Kernel, r: Array) -> mx.array:
        x, _, dtype = _inputs.data("RobustNorm", ("r", "r"), r, r)
        compute = compute_dtype(x, x)
        specs = self._entry.loss.thresholds
        theta, unchecked = _inputs.thresholds(
            "RobustNorm", specs, self.thresholds, x.shape, compute
        )
        return term(kernel, unchecked, False, dtype)(x, mx.zeros((), compute), *theta)
