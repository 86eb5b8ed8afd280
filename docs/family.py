"""The losses at a glance: ``python docs/family.py`` draws them and prints three tables.

All are made from the records of the losses and their rows in ``tests/textbook.py``, so a new loss
is in them by itself.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import smoothloss

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from textbook import row as textbook

HEADINGS = "loss|`rho(r)`|largest gradient|convex?|smooth?|redescends?"

# What is drawn where the defaults would show little.
SHOWN = {"quantile": 0.75, "expectile": 0.75, "epsilon": 0.5}
NARROW = {"tukey_loss": {"c": 3.0}}
ALPHAS = {"general_loss": (-np.inf, -2.0, 0.0, 1.0, 2.0), "adaptive_loss": (0.0, 1.0, 2.0)}

EFFICIENCIES = (0.85, 0.9, 0.95, 0.98)

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


def formula(loss: smoothloss.Loss, text: str) -> str:
    """An expression of the textbook; branches of single thresholds are only named, as limits."""
    kept, limits = [], []
    valid = {t.name: t for t in loss.thresholds}
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
    """A trait that may depend on thresholds."""
    return {"True": "yes", "False": "no"}.get(text, f"if {code(text)}")


def kinks(loss: smoothloss.Loss) -> list[str]:
    """The kinks as text, in terms of the thresholds."""
    found = loss.traits.kinks
    if not callable(found):
        return [f"{kink:g}" for kink in found or ()]
    names = {float(k): name for k, name in enumerate(loss.threshold_names, start=1)}
    texts = names | {-k: f"-{name}" for k, name in names.items()} | {0.0: "0"}
    return [texts[kink] for kink in found(*names)]


def smooth(loss: smoothloss.Loss) -> str:
    """How often rho can be differentiated, and where it cannot."""
    if not kinks(loss):
        return "yes"
    typical = loss.traits.at(*range(1, 1 + len(loss.thresholds)))
    how = {0: "no (kink", 1: "once (psi bends", 2: "twice (psi' bends"}[
        typing.cast(int, typical.smoothness)
    ]
    return f"{how} at {list_of(kinks(loss))})"


def row(loss: smoothloss.Loss) -> tuple[str, ...]:
    """The cells of a loss."""
    of = textbook(loss.name)
    rho, bound = (formula(loss, text) for text in (of.formula, of.bound))
    convex, redescends = map(whether, (of.convex, of.redescends))
    return code(loss.name), rho, bound, convex, smooth(loss), redescends


def catalog() -> list[smoothloss.Loss]:
    """The records of all losses, by name."""
    return [getattr(smoothloss, name).loss for name in smoothloss.losses.__all__]


def class_of(loss: smoothloss.Loss) -> type[smoothloss.LossModule]:
    """The class of a loss."""
    classes = [v for v in vars(smoothloss).values() if isinstance(v, type)]
    return next(c for c in classes if getattr(c, "loss", None) is loss)


def call(name: str, signature: inspect.Signature) -> str:
    """A call with the names and defaults of the arguments that need no keyword."""
    words = [
        p.name if p.default is p.empty else f"{p.name}={json.dumps(p.default)}"
        for p in signature.parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]
    return code(f"{name}({', '.join(words)})")


def calls_row(loss: smoothloss.Loss) -> tuple[str, ...]:
    """How a loss is called and made, and what for."""
    module = class_of(loss)
    made = call(module.__name__, inspect.signature(module))
    return f"{call(loss.name, inspect.signature(loss))}<br>{made}", textbook(loss.name).use


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


def thresholds(loss: smoothloss.Loss) -> dict[str, Any]:
    """The thresholds of a panel, but for alpha where there are several."""
    names = [t for t in loss.thresholds if not (t.name == "alpha" and loss.name in ALPHAS)]
    return {t.name: SHOWN.get(t.name, t.default) for t in names} | NARROW.get(loss.name, {})


def panel(axes: Any, loss: smoothloss.Loss) -> None:
    """Rho and psi of one loss."""
    r = np.linspace(-4, 4, 1601)
    theta = thresholds(loss)
    for alpha in ALPHAS.get(loss.name, (None,)):
        shape = {} if alpha is None else {"alpha": alpha}
        norm = smoothloss.RobustNorm(loss, **theta, **shape)
        colour = BLUE if alpha is None else COLOURS[alpha]
        axes.plot(r, np.asarray(norm.rho(r)), color=colour, lw=1.8)
        axes.plot(r, np.asarray(norm.psi(r)), color=colour, lw=1.5, ls=DASHED)
    axes.set_title(loss.name, fontsize=12, fontweight="bold", pad=18)
    words = ", ".join(f"{name} = {value:g}" for name, value in theta.items())
    axes.text(0.5, 1.03, words, transform=axes.transAxes, ha="center", fontsize=10, color=GREY)
    axes.set(xlim=(-4, 4), ylim=(-2, 4), xticks=range(-4, 5, 2), yticks=range(-2, 5, 2))
    axes.grid(color="#dddddd", lw=0.7)


def threshold(norm: smoothloss.RobustNorm, efficiency: float) -> str:
    """The threshold of an efficiency, if there is one."""
    try:
        return f"{norm.tuning(efficiency):.4f}"
    except ValueError:
        return "none"


def tuned() -> str:
    """The table of the thresholds by efficiency, of the even losses that have one."""
    rows = [" | ".join(["loss", "threshold", *(f"{e:.0%}" for e in EFFICIENCIES)])]
    rows.append(" | ".join(["---"] * (2 + len(EFFICIENCIES))))
    for loss in catalog():
        names = [t.name for t in loss.thresholds if t.has_residual_units]
        norm = smoothloss.RobustNorm(loss)
        if len(names) == 1 and norm.traits.even:
            found = [threshold(norm, e) for e in EFFICIENCIES]
            rows.append(" | ".join([code(loss.name), code(names[0]), *found]))
    return "".join(f"| {row} |\n" for row in rows)


def picture(file: Path) -> None:
    """Draw rho and psi of every loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    losses = catalog()
    rows = len(losses) // COLUMNS + 1  # with room for the legend
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(12.3, 2.6 * rows), squeeze=False, sharey=True, layout="constrained"
    )
    for axes, loss in zip(grid.flat, losses, strict=False):
        panel(axes, loss)
    spare = grid.flat[len(losses) :]
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
    print(calls(), table(), tuned(), sep="\n", end="")
