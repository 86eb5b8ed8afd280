"""What is shown: lines of a table, a picture, the ratios for the docs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HEADER = (
    f"{'loss':<20}{'dtype':<10}{'N':>10}  {'call':<34}{'us':>11}{'ns/el':>12}{'roof':>7}{'B/el':>7}"
    f"{'k':>5}   ratios to ours: median (quartiles)"
)


def size(n: int) -> str:
    """65536 -> 64 K."""
    for unit, scale in (("M", 1 << 20), ("K", 1 << 10)):
        if n >= scale and n % scale == 0:
            return f"{n // scale} {unit}"
    return str(n)


def line(row: Row) -> str:
    _, mine, _ = row["seconds"]["smoothloss"]
    n = row["n"]
    ratios = "  ".join(
        f"{name} {median:.2f} ({low:.2f}-{high:.2f})"
        for name, (low, median, high) in row["ratio"].items()
    )
    return (
        f"{row['loss']:<20}{row['dtype']:<10}{n:>10}  {row['label']:<34}{mine * 1e6:>11.1f}"
        f"{mine / n * 1e9:>12.2f}{row['roofline']:>7.2f}{row['peak_bytes']['smoothloss'] / n:>7.1f}"
        f"{row['kernels']:>5}   {ratios}"
    )


def first_line(row: Row) -> str:
    return (
        f"{row['loss']:<20}{row['library']:<12}first compiled result {row['seconds']:.2f} s, "
        f"{row['compilations']} kernels compiled; {row['for_new_thresholds']} more for "
        f"{row['thresholds']} new thresholds"
    )


def write(file: Path, results: dict[str, list[Row]]) -> None:
    """As JSON, a row a line."""
    lines = {name: ",\n".join(map(json.dumps, rows)) for name, rows in results.items()}
    parts = (f'"{name}": [\n{rows}\n]' for name, rows in lines.items())
    file.write_text("{" + ",\n".join(parts) + "}\n")


def updated(file: Path, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of a file, these in place of those of the same workloads, and its first calls."""
    kept = json.loads(file.read_text())
    measured = ("seconds", "ratio", "roofline", "map", "peak_bytes", "kernels")

    def workload(row: Row) -> str:
        given = {"dims": (), **row}
        return json.dumps({k: v for k, v in given.items() if k not in measured}, sort_keys=True)

    new = {workload(row): row for row in rows}
    merged = [new.pop(workload(row), row) for row in kept["rows"]]
    return [*merged, *new.values()], kept["first"]


def is_headline(row: Row) -> bool:
    return bool(row["label"] == "-" and "mlx.nn" in row["ratio"])


def markdown(rows: Iterable[Row], library: str = "mlx.nn") -> str:
    """The ratios of the compiled value-and-grad to a library, as a table."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in filter(is_headline, rows):
        found.setdefault((row["loss"], row["dtype"]), {})[row["n"]] = row["ratio"][library][1]
    sizes = sorted(set.intersection(*(set(v) for v in found.values())))
    head = f"| loss | dtype | {' | '.join(map(size, sizes))} |\n|{'---|' * (2 + len(sizes))}\n"
    return head + "".join(
        f"| `{loss}` | {dtype} | {' | '.join(f'{v[n]:.1f}×' for n in sizes)} |\n"
        for (loss, dtype), v in found.items()
    )


def _site(row: Row) -> str:
    extra = "weights=" * row["weights"] + "where=" * row["where"]
    dtype = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"`{row['loss']}` {tuple(row['dims'])}{dtype}{f', `{extra}`' if extra else ''}"


def sites(rows: Iterable[Row], eager: str = "mlx.nn", compiled: str = "mlx.nn") -> str:
    """The ratios of calls of real programs to other libraries, those that lose first."""
    found: dict[str, dict[tuple[bool, bool], float]] = {}
    for row in rows:
        library = compiled if row["compiled"] else eager
        if library in row["ratio"]:
            way = row["compiled"], row["gradient"]
            found.setdefault(_site(row), {})[way] = row["ratio"][library][1]
    ways = [(c, g) for c in (False, True) for g in (False, True)]
    lines = [
        f"| {site} | {' | '.join(f'{v[way]:.2f}' if way in v else '-' for way in ways)} |\n"
        for site, v in sorted(found.items(), key=lambda item: min(item[1].values()))
    ]
    head = "| call | eager | eager, with gradient | compiled | compiled, with gradient |\n"
    return head + "|---|---|---|---|---|\n" + "".join(lines)


def costs(rows: Iterable[Row], n: int = 1 << 20) -> str:
    """What each loss takes in float32, forward and with its gradient, as a table."""
    of = {
        (row["loss"], row["label"]): row
        for row in rows
        if row["dtype"] == "float32" and row["n"] == n
    }
    lines = []
    for loss in sorted({loss for loss, _ in of}):
        forward, both = of[loss, "forward"], of[loss, "-"]
        ns = (f"{row['seconds']['smoothloss'][1] / n * 1e9:.1f}" for row in (forward, both))
        lines.append(
            f"| `{loss}` | {' | '.join(ns)} | {both['peak_bytes']['smoothloss'] / n:.0f} |\n"
        )
    head = "| loss | forward, ns | value-and-grad, ns | peak, bytes |\n|---|---|---|---|\n"
    return head + "".join(lines)


def picture(rows: list[Row], file: Path, caption: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    headline = list(filter(is_headline, rows))
    losses = sorted({row["loss"] for row in headline})
    dtypes = list(dict.fromkeys(row["dtype"] for row in headline))
    figure, axes = plt.subplots(
        1, len(dtypes), figsize=(3.6 * len(dtypes), 3.6), sharey=True, squeeze=False
    )
    for ax, dtype in zip(axes[0], dtypes, strict=True):
        for loss in losses:
            points = sorted(
                (row["n"], row["ratio"]["mlx.nn"])
                for row in headline
                if row["loss"] == loss and row["dtype"] == dtype
            )
            sizes = [n for n, _ in points]
            low, median, high = zip(*(q for _, q in points), strict=True)
            ax.plot(sizes, median, marker="o", markersize=3, label=loss)
            ax.fill_between(sizes, low, high, alpha=0.2)
        ax.axhline(1, color="grey", linewidth=0.8)
        ax.set(xscale="log", yscale="log", title=dtype, xlabel="elements")
        ax.set_yticks([1, 2, 5, 10, 20], labels=["1×", "2×", "5×", "10×", "20×"])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("times as fast as mlx.nn.losses")
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.suptitle(caption, fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)
