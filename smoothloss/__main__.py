"""Fit a line under four losses, side by side: ``python -m smoothloss --help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ._demo import data, report
from ._demo.fit import LOSSES, Fit, fit

PROGRAM = "python -m smoothloss"
DESCRIPTION = """\
Fit a line to data by gradient descent under mean squared error, L1, smooth L1 (beta = 1) and
Huber's loss (delta = 1.345 times the scale of the residuals), and compare. The data are
Belgium's international phone calls, 1950-1973, of which six years hold minutes instead."""
EPILOG = f"""\
example:
  {PROGRAM} --loss mse,huber --data my.csv --out my.png

The file has two columns of numbers, x and y, separated by a comma. A first line without
numbers names them. Exit codes: 0 converged, 1 not converged, 2 wrong input."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {message}\n")


def _losses(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in LOSSES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no loss; expected {', '.join(LOSSES)}. Separate several by commas."
            )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--loss",
        action="extend",
        type=_losses,
        metavar="NAME[,NAME]",
        help=f"of {', '.join(LOSSES)}; may be repeated (default: all)",
    )
    parser.add_argument("--data", metavar="CSV", help="the data (default: the phone calls)")
    parser.add_argument(
        "--out", metavar="PNG", help="the picture (default: phones.png, or named after the CSV)"
    )
    return parser


def _unwritable(path: str) -> str | None:
    """Return what keeps ``path`` from being written, which should show before the training."""
    file = Path(path)
    if file.is_dir():
        return f"--out {path}: a directory; expected a file. Name a file in it."
    if file.suffix.lower() != ".png":
        return f"--out {path}: found no PNG; expected a name ending in .png. Rename it."
    if not file.parent.is_dir():
        return f"--out {path}: no folder {file.parent}; expected an existing one. Create it first."
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        return f"--out {path}: no permission; expected a place that can be written. Choose another."
    return None


def _train(names: Sequence[str], table: data.Table) -> list[Fit]:
    from tqdm import tqdm

    fits = []
    # disable=None: silent unless stderr is a terminal
    with tqdm(total=len(names), unit="fit", disable=None) as bar:
        for name in names:
            bar.set_description(name)
            fits.append(
                fit(name, table, lambda steps, path: bar.set_postfix(steps=steps, moved=path))
            )
            bar.update()
    return fits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    shipped = options.data is None
    out = options.out or Path("phones.csv" if shipped else options.data).stem + ".png"
    try:
        table = data.phones() if shipped else data.read(options.data)
    except data.DataError as error:
        parser.error(str(error))
    if problem := _unwritable(out):
        parser.error(problem)
    try:
        import matplotlib  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        parser.error(f"{error.name} is missing. Install it with pip install 'smoothloss[demo]'.")

    fits = _train(list(dict.fromkeys(options.loss or LOSSES)), table)
    print(report.table(fits, shipped=shipped))
    try:
        report.picture(table, fits, out, shipped=shipped)
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}; expected a writable file. Choose another.")
    print(f"Picture: {out}")
    failed = [f"{f.loss} (in {f.steps} steps)" for f in fits if not f.converged]
    if failed:
        print(f"{PROGRAM}: error: not converged: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
