"""Facts about a loss that a caller may ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Trait: TypeAlias = T | Callable[..., T] | None
"""A value, or a function of the thresholds where it depends on them; None where it is unknown."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Facts about a loss: whether it is convex, where its kinks are, how large psi gets.

    Each is a value, or a function of the thresholds, in order, where it depends on them. None means
    that it is unknown, as everything is of a loss that does not say.

    Parameters
    ----------
    convex : bool, optional
        Whether rho is convex, so that a linear model has no local minima but the global ones.
    even : bool, optional
        Whether rho(-r) = rho(r).
    redescending : bool, optional
        Whether psi falls to 0 far out, so that far outliers have no influence.
    bound : float, optional
        The supremum of the absolute value of psi, inf where it grows for ever.
    minimum : float, optional
        The least value of rho, at r = 0.
    smoothness : float, optional
        The number of continuous derivatives of rho. inf where all are continuous; 0 for a corner,
        as of the absolute value; 1 where psi bends and 2 where psi' bends.
    kinks : tuple of float, optional
        The residuals at which a derivative jumps: at one of them or more, the one after the first
        ``smoothness`` ones.
    degree : int, optional
        The p of rho(k r, k theta) = k^p rho(r, theta) for k > 0, where theta stands for the
        thresholds in units of the residual. None also where there is no p.

    Examples
    --------
    >>> import smoothloss as sl
    >>> sl.HuberLoss.loss.traits.convex
    True
    >>> sl.RobustNorm(sl.huber_loss, delta=2.0).traits.kinks
    (-2.0, 2.0)
    >>> sl.RobustNorm(sl.general_loss, alpha=-2.0).traits.redescending
    True
    """

    convex: Trait[bool] = None
    even: Trait[bool] = None
    redescending: Trait[bool] = None
    bound: Trait[float] = None
    minimum: Trait[float] = None
    smoothness: Trait[float] = None
    kinks: Trait[tuple[float, ...]] = None
    degree: Trait[int] = None

    def at(self, *thresholds: float) -> Traits:
        """Return the traits as values, for these thresholds."""
        found: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            trait = getattr(self, f.name)
            found[f.name] = trait(*thresholds) if callable(trait) else trait
        return Traits(**found)
