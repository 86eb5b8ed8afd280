"""What the tests and the tables need to know of each loss beside its record: one row a loss.

Texts are Python expressions of ``r`` and the thresholds, for thresholds inside their interval. The
oracle evaluates them at many digits, and the documentation prints them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Row:
    """The textbook's rho, the bounds of the errors, and words for the documentation.

    ``formula`` is rho. ``ulps`` bounds the errors of rho and psi in float32 and float64, for a
    residual that is rounded, and ``absolute`` what an approximation adds to that of rho;
    ``by_shape`` is the bound of derivatives by plain numbers, of which ``by_shape_absolute`` parts
    of their size come from an approximation. ``kernels`` bounds those of a compiled value-and-grad
    in float32.

    ``use`` completes "use it when ..."; ``bound``, ``convex`` and ``redescends`` are the traits of
    the record as text.
    """

    formula: str
    ulps: tuple[str, str]
    use: str
    bound: str
    convex: str = "True"
    redescends: str = "False"
    absolute: str = "0"
    by_shape: float = 4
    by_shape_absolute: float = 0
    kernels: int = 2


TEXTBOOK = {
    "arctan_loss": Row(
        formula="atan((r/scale)**2)/2",
        ulps=("4", "5"),
        use="you come from the arctan loss of SciPy; Geman-McClure is wider",
        bound="27**(1/4)/(4*scale)",
        convex="False",
        redescends="True",
    ),
    "berhu_loss": Row(
        formula="abs(r) if abs(r) <= delta else (r**2 + delta**2)/(2*delta)",
        ulps=("3.5", "1.5"),
        use="large residuals should pull hardest and small ones as with L1, as in depth estimation",
        bound="inf",
    ),
    "cauchy_loss": Row(
        formula="log(1 + (r/scale)**2/2)",
        ulps=("4", "3.5"),
        use="there are many or extreme outliers, but every point should keep some influence",
        bound="1/(sqrt(2)*scale)",
        convex="False",
        redescends="True",
    ),
    "charbonnier_loss": Row(
        formula="sqrt(r**2 + epsilon**2)",
        ulps=("3", "3"),
        use="you want L1 with derivatives of every order, as in image restoration",
        bound="1",
    ),
    "geman_mcclure_loss": Row(
        formula="2*(r/scale)**2/((r/scale)**2 + 4)",
        ulps=("5", "6"),
        use="outliers should be ignored, and you start near the solution",
        bound="3*sqrt(3)/(8*scale)",
        convex="False",
        redescends="True",
    ),
    "epsilon_insensitive_loss": Row(
        formula="max(abs(r) - epsilon, 0)",
        ulps=("0.5 + abs(r)/(1e-300 + abs(abs(r) - epsilon))", "0"),
        use="errors up to epsilon are fine, as in support-vector regression",
        bound="1",
    ),
    "expectile_loss": Row(
        formula="(1 - expectile if r > 0 else expectile)*r**2",
        ulps=("3", "1.5"),
        use="you want an expectile, as in implicit Q-learning: the mean, tilted",
        bound="inf",
    ),
    "fair_loss": Row(
        formula="c**2*(abs(r)/c - log(1 + abs(r)/c))",
        ulps=("8", "3"),
        use="you want Huber's behaviour with a curvature that is positive everywhere",
        bound="c",
        kernels=9,
    ),
    "general_loss": Row(
        formula="(r/scale)**2/2 if alpha == 2 else log(1 + (r/scale)**2/2) if alpha == 0"
        " else 1 - exp(-(r/scale)**2/2) if alpha == -inf else exp((r/scale)**2/2) - 1"
        " if alpha == inf"
        " else abs(alpha - 2)/alpha*((1 + (r/scale)**2/abs(alpha - 2))**(alpha/2) - 1)",
        ulps=(
            "9 + 2.5*abs(alpha) if abs(alpha) < 16 else 8 + (r/scale)**2",
            "17 + 2.5*abs(alpha - 2) if abs(alpha) < 16 else 10 + 3*(r/scale)**2",
        ),
        use="you want to tune by one number how robust the loss is",
        bound="1/scale if alpha == 1 else exp(-1/2)/scale if alpha == -inf else inf"
        " if alpha > 1 else ((2 - alpha)/(1 - alpha))**((alpha - 1)/2)/scale",
        convex="alpha >= 1",
        redescends="alpha < 1",
        by_shape=1000,
        kernels=6,
    ),
    "huber_loss": Row(
        formula="r**2/2 if abs(r) <= delta else delta*(abs(r) - delta/2)",
        ulps=("3", "0.5"),
        use="errors are normal but for a few outliers: delta = 1.345 sigma is 95 % efficient",
        bound="delta",
    ),
    "l1_loss": Row(
        formula="abs(r)",
        ulps=("0.5", "0"),
        use="you want to fit the median; residuals of exactly zero are fine",
        bound="1",
    ),
    "log_cosh_loss": Row(
        formula="log(cosh(r))",
        ulps=("5", "3"),
        use="you want Huber's behaviour with derivatives of every order and nothing to tune",
        bound="1",
    ),
    "mse_loss": Row(
        formula="r**2",
        ulps=("3", "0.5"),
        use="errors are normal, without outliers",
        bound="inf",
    ),
    "pseudo_huber_loss": Row(
        formula="delta**2*(sqrt(1 + (r/delta)**2) - 1)",
        ulps=("3.5", "3"),
        use="you want Huber's behaviour with derivatives of every order",
        bound="delta",
    ),
    "quantile_loss": Row(
        formula="max(-quantile*r, (1 - quantile)*r)",
        ulps=("2", "1"),
        use="you want a quantile, or an interval from two of them",
        bound="max(quantile, 1 - quantile)",
    ),
    "quantile_huber_loss": Row(
        formula="(1 - quantile if r > 0 else quantile) * (r**2/2 if abs(r) <= kappa"
        " else kappa*(abs(r) - kappa/2))",
        ulps=("4", "2"),
        use="a network learns many quantiles, as in distributional reinforcement learning",
        bound="max(quantile, 1 - quantile)*(kappa if kappa > 0 else 1)",
    ),
    "smooth_l1_loss": Row(
        formula="r**2/(2*beta) if abs(r) < beta else abs(r) - beta/2",
        ulps=("3", "2"),
        use="you fit boxes or the like: the gradient of an outlier is capped at 1",
        bound="1",
    ),
    "squared_epsilon_insensitive_loss": Row(
        formula="max(abs(r) - epsilon, 0)**2",
        ulps=(
            "2 + 2*abs(r)/(1e-300 + abs(abs(r) - epsilon))",
            "0.5 + abs(r)/(1e-300 + abs(abs(r) - epsilon))",
        ),
        use="errors up to epsilon are fine, and there are no outliers",
        bound="inf",
    ),
    "student_t_loss": Row(
        formula="(r/scale)**2/2 if df == inf else (df + 1)/2*log(1 + (r/scale)**2/df)",
        ulps=("7", "4"),
        use="errors follow a Student t distribution, of which you know how heavy the tails are",
        bound="(sqrt(df) + 1/sqrt(df))/(2*scale)",
        convex="df == inf",
        redescends="df < inf",
        by_shape=8,
        kernels=9,
    ),
    "tukey_loss": Row(
        formula="c**2/6*(1 - (1 - (r/c)**2)**3) if abs(r) <= c else c**2/6",
        ulps=("5", "7 + 4/(1e-20 + abs(1 - abs(r)/c))"),
        use="outliers should have no influence at all: c = 4.685 sigma is 95 % efficient",
        bound="16*c/(25*sqrt(5))",
        convex="False",
        redescends="True",
    ),
    "welsch_loss": Row(
        formula="1 - exp(-(r/scale)**2/2)",
        ulps=("4", "9 + 1.5*(r/scale)**2"),
        use="outliers should be ignored, and lose their influence faster than with Geman-McClure",
        bound="exp(-1/2)/scale",
        convex="False",
        redescends="True",
    ),
}
TEXTBOOK["adaptive_loss"] = replace(
    TEXTBOOK["general_loss"],
    formula="general_loss(r, alpha, scale) + log(scale) + log_z(alpha)",
    use="you want the model to learn how robust the loss is: alpha and scale are trained with it",
    absolute="6e-7 + 2e-7*abs(log(scale))",
    by_shape_absolute=2e-05,
)


def row(name: str) -> Row:
    """The row of a loss."""
    if name not in TEXTBOOK:
        raise LookupError(
            f"{name} has no row in tests/textbook.py: add one with its textbook formula, the "
            f"bounds of its errors and its words for the documentation."
        )
    return TEXTBOOK[name]
