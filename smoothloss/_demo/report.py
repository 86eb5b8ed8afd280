"""The fits as a table and as a picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .data import Column, Table
from .fit import ROUND, TOLERANCE, Fit
from .output import SOFTWARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Slope, intercept and scale as published.
PUBLISHED = {"mse": ("5.0415", "-260.059", ""), "huber": ("2.04", "-102.62", "9.03")}
SOURCES = """\
Published: W. N. Venables, B. D. Ripley, Modern Applied Statistics with S, 4th ed., 2002,
section 6.5. Their Huber fit stopped early; iterated to the end, it is 2.0396, -102.530, 9.0093.
Data: P. J. Rousseeuw, A. M. Leroy, Robust Regression and Outlier Detection, 1987, chapter 2."""
THRESHOLDS = {
    "smooth_l1": "smooth_l1 has beta = 1, in units of y.",
    "huber": "huber has delta = 1.345 times the scale, the median |residual| over 0.6745.",
}
L1_NOTE = "l1 has no single answer here: slopes from 1.1571 to 1.6222 reach the same least loss."

STYLES = {
    "mse": ("#d55e00", "-"),
    "l1": ("#0072b2", "--"),
    "smooth_l1": ("#009e73", ":"),
    "huber": ("#cc79a7", "-."),
}
INK = "#222222"


def table(fits: Sequence[Fit], *, shipped: bool) -> str:
    """Return the fits as aligned text, the shipped data's beside the published ones."""
    rows = [["loss", "slope", "intercept", "scale", "steps"]]
    for f in fits:
        scale = _digits(f.scale) if f.loss == "huber" else ""
        rows.append([f.loss, _digits(f.slope), _digits(f.intercept), scale, str(f.steps)])
    if shipped:
        rows[0] += ["  published slope", "intercept", "scale"]
        for row in rows[1:]:
            row += PUBLISHED.get(row[0], ("", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_padded(row, widths)).rstrip() for row in rows]
    lines += ["", *_verdicts(fits)]
    lines += [THRESHOLDS[f.loss] for f in fits if f.loss in THRESHOLDS]
    if shipped:
        lines += [L1_NOTE] * any(f.loss == "l1" for f in fits) + [SOURCES]
    return "\n".join(lines)


def _verdicts(fits: Sequence[Fit]) -> list[str]:
    """Say which fits converged, and what that means."""
    moved = f"in the last {ROUND} steps the line moved by"
    lines = [
        f"{f.loss} has NOT CONVERGED: {moved} {f.path:.1e} of its size. Do not use it."
        for f in fits
        if not f.converged
    ]
    if converged := ", ".join(f.loss for f in fits if f.converged):
        lines.append(f"Converged: {converged} ({moved} <= {TOLERANCE:g} of its size).")
    return lines


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]


def _digits(value: float) -> str:
    """Return six significant digits, one more than the fits are accurate to."""
    return f"{value:#.6g}".rstrip(".")


def picture(data: Table, fits: Sequence[Fit], *, shipped: bool) -> bytes:
    """Draw the points and the lines, and return the PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ends = np.array([data.x.min(), data.x.max()])
    for f in fits:
        color, dashes = STYLES[f.loss]
        axes.plot(ends, f.intercept + f.slope * ends, dashes, color=color, linewidth=2)
    if shipped:
        _phones(data, axes)
    else:
        axes.plot(data.x, data.y, "o", color=INK, markersize=4)
        axes.set_xlabel(data.x_name, parse_math=False)
        axes.set_ylabel(data.y_name, parse_math=False)
    _label(fits, ends, axes)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box, which says enough.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(png, format="png", metadata={"Software": SOFTWARE})
    return png.getvalue()


def _phones(data: Table, axes: Axes) -> None:
    """Draw the phone calls, with the years marked in which minutes were recorded."""
    minutes = (data.x >= 64) & (data.x <= 69)
    partly = (data.x == 63) | (data.x == 70)
    axes.axvspan(63.5, 69.5, color="#eeeeee")
    for part, marker, label in (
        (~(minutes | partly), "o", "calls"),
        (minutes, "x", "minutes were recorded, not calls (1964–69)"),
        (partly, "+", "minutes for a part of the year (1963, 1970)"),
    ):
        axes.plot(data.x[part], data.y[part], marker, color=INK, markersize=5, label=label)
    axes.legend(loc="upper left", frameon=False)
    axes.set_title("International phone calls from Belgium", loc="left")
    axes.set_xlabel("year (19..)")
    axes.set_ylabel("calls (millions)")


def _label(fits: Sequence[Fit], ends: Column, axes: Axes) -> None:
    """Name every line at its right end, from above downwards, without overlaps."""
    low, high = axes.get_ylim()
    height = np.inf
    for right, f in sorted(((f.intercept + f.slope * ends[1], f) for f in fits), reverse=True):
        height = min(right, height - 0.045 * (high - low))
        x = ends[1] + 0.01 * (ends[1] - ends[0])
        axes.text(x, height, f.loss, color=STYLES[f.loss][0], verticalalignment="center")
