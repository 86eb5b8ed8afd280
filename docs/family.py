"""The losses at a glance: ``python docs/family.py`` draws them and prints two tables.

All are made from the records of the catalogue, so a new loss is in them by itself.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import smoothloss
from smoothloss._catalog import Entry, catalog

HEADINGS = "loss|`rho(r)`|largest gradient|convex?|smooth?|redescends?"

# What is drawn where the defaults would show little.
SHOWN = {"quantile": 0.75, "epsilon": 0.5}
ALPHAS = {"general_loss": (-np.inf, -2.0, 0.0, 1.0, 2.0), "adaptive_loss": (0.0, 1.0, 2.0)}

COLUMNS = 4
DASHED, BLUE, GREY = (0, (3, 1.2)), "#0072b2", "#444444"
# Of Okabe and Ito, told apart by colour-blind eyes.
COLOURS = {-np.inf: "#cc79a7", -2.0: "#d55e00", 0.0: "#e69f00", 1.0: "#222222", 2.0: "#009e73"}


def code(text: str) -> str:
    """``text`` as code in a cell."""
    return f"`{text}`".replace("|", r"\|")


def branches(node: ast.expr) -> Iterator[tuple[ast.expr, ...]]:
    """The values of a chain of conditions, each with its test but the last."""
    while isinstance(node, ast.IfExp):
        yield node.body, node.test
        node = node.orelse
    yield (node,)


def list_of(texts: Sequence[str]) -> str:
    """["-a", "0", "a"] -> "0 and ±a"."""
    both = [t for t in texts if f"-{t}" in texts]
    rest = [t for t in texts if t not in both and t.removeprefix("-") not in both]
    *most, last = rest + [f"±{t}" for t in both]
    return f"{', '.join(most)} and {last}" if most else last


def formula(entry: Entry, text: str) -> str:
    """An expression of a record; the branches of single thresholds are only named, as limits."""
    kept, limits = [], []
    valid = {t.name: t for t in entry.loss.thresholds}
    for parts in branches(ast.parse(text, mode="eval").body):
        match parts[1:]:
            case [ast.Compare(ast.Name(name), [ast.Eq()], [at])] if name in valid:
                limit = ast.unparse(at)
                if valid[name].low <= float(limit) <= valid[name].high:
                    limits.append(limit)
            case _:
                kept.append(" if ".join(str(ast.get_source_segment(text, p)) for p in parts))
    if not limits:
        return code(" else ".join(kept))
    return f"{code(' else '.join(kept))} (limit{'s'[: len(limits) > 1]} at {list_of(limits)})"


def whether(text: str) -> str:
    """A claim that may depend on thresholds."""
    return {"True": "yes", "False": "no"}.get(text, f"if {code(text)}")


def smooth(entry: Entry) -> str:
    """How often rho can be differentiated, and where it cannot."""
    claims = entry.loss.claims
    if not claims.kinks:
        return "yes"
    how = ("no (kink", "once (psi bends", "twice (psi' bends")[int(claims.smoothness)]
    return f"{how} at {list_of(claims.kinks)})"


def row(entry: Entry) -> tuple[str, ...]:
    """The cells of a loss."""
    claims = entry.loss.claims
    rho, bound = (formula(entry, text) for text in (claims.formula, claims.bound))
    convex, redescends = map(whether, (claims.convex, claims.redescending))
    return code(entry.name), rho, bound, convex, smooth(entry), redescends


def call(name: str, signature: inspect.Signature) -> str:
    """A call with the names and defaults of the arguments that need no keyword."""
    words = [
        p.name if p.default is p.empty else f"{p.name}={json.dumps(p.default)}"
        for p in signature.parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]
    return code(f"{name}({', '.join(words)})")


def calls_row(entry: Entry) -> tuple[str, ...]:
    """How a loss is called and made, and what for."""
    module = entry.module
    made = call(module.__name__, inspect.signature(module))
    return f"{call(entry.name, entry.signature)}<br>{made}", entry.loss.claims.use


def markdown(headings: str, rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    head = headings.split("|")
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def table() -> str:
    """What the losses are, for ``docs/losses.md``."""
    return markdown(HEADINGS, map(row, catalog()))


def calls() -> str:
    """How to use them, for the README."""
    return markdown("function and class|use it when ...", map(calls_row, catalog()))


def thresholds(entry: Entry) -> dict[str, float]:
    """The thresholds of a panel, but for alpha where there are several."""
    names = [n for n in entry.threshold_names if not (n == "alpha" and entry.name in ALPHAS)]
    return {n: SHOWN.get(n, entry.signature.parameters[n].default) for n in names}


def panel(axes: Any, entry: Entry) -> None:
    """Rho and psi of one loss."""
    r = np.linspace(-4, 4, 1601)
    theta = thresholds(entry)
    for alpha in ALPHAS.get(entry.name, (None,)):
        shape = {} if alpha is None else {"alpha": alpha}
        norm = smoothloss.RobustNorm(entry.function, **theta, **shape)
        colour = BLUE if alpha is None else COLOURS[alpha]
        axes.plot(r, np.asarray(norm.rho(r)), color=colour, lw=1.8)
        axes.plot(r, np.asarray(norm.psi(r)), color=colour, lw=1.5, ls=DASHED)
    axes.set_title(entry.name, fontsize=12, fontweight="bold", pad=18)
    words = ", ".join(f"{name} = {value:g}" for name, value in theta.items())
    axes.text(0.5, 1.03, words, transform=axes.transAxes, ha="center", fontsize=10, color=GREY)
    axes.set(xlim=(-4, 4), ylim=(-2, 4), xticks=range(-4, 5, 2), yticks=range(-2, 5, 2))
    axes.grid(color="#dddddd", lw=0.7)


def picture(file: Path) -> None:
    """Draw rho and psi of every loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    entries = catalog()
    rows = len(entries) // COLUMNS + 1  # with room for the legend
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(12.3, 2.6 * rows), squeeze=False, sharey=True, layout="constrained"
    )
    for axes, entry in zip(grid.flat, entries, strict=False):
        panel(axes, entry)
    spare = grid.flat[len(entries) :]
    for axes in spare:
        axes.axis("off")
    styles = {"rho(r), the loss": "-", "psi(r), its gradient": DASHED}
    lines = [Line2D([], [], color=BLUE, lw=1.8, ls=s, label=t) for t, s in styles.items()]
    lines += [Line2D([], [], color=c, lw=4, label=f"alpha = {a:g}") for a, c in COLOURS.items()]
    spare[0].legend(handles=lines, loc="center", fontsize=11, frameon=False)
    figure.savefig(file, dpi=130, pil_kwargs={"optimize": True})
    plt.close(figure)


if __name__ == "__main__":
    picture(Path(__file__).with_suffix(".png"))
    print(calls(), table(), sep="\n", end="")
