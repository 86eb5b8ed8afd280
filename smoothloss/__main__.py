"""Fit a line under four losses, side by side: ``python -m smoothloss --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ._demo import data, output, report
from ._demo.fit import LOSSES, Fit, fit

PROGRAM = output.SOFTWARE
DESCRIPTION = """\
Fit a line to data by gradient descent under mean squared error, L1, smooth L1 (beta = 1) and
Huber's loss (delta = 1.345 times the scale of the residuals), and compare. The data are
Belgium's international phone calls, 1950-1973, of which six years hold minutes instead."""
EPILOG = f"""\
example:
  {PROGRAM} --loss mse,huber --data my.csv --out my.png

The file has two columns of numbers, x and y, separated by a comma. A first line without
numbers names them. The picture replaces an earlier one of this program, any other file only
with --force, and the data never.

exit codes:
  0    every fit converged
  1    a fit did not converge
  2    wrong input, or output that cannot be written
  130  Ctrl-C"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help goes to any stdout."""

    def error(self, message: str) -> NoReturn:
        output.complain(message)
        self.exit(2)

    def print_help(self, file: object = None) -> None:
        if problem := output.show(self.format_help().rstrip()):
            self.error(f"standard output: {problem}")


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
    parser.add_argument(
        "--force", action="store_true", help="let the picture replace any file but the data"
    )
    return parser


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
    out = options.out
    if out is None:
        out = Path("phones.csv" if shipped else options.data).stem + ".png"
    try:
        table = data.phones() if shipped else data.read(options.data)
    except data.DataError as error:
        parser.error(str(error))
    if problem := output.refusal(out, options.data, force=options.force):
        parser.error(f"--out {out}: {problem}")
    try:
        import matplotlib  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        parser.error(f"{error.name} is missing. Install it with pip install 'smoothloss[demo]'.")

    fits = _train(list(dict.fromkeys(options.loss or LOSSES)), table)
    return _report(fits, table, out, shipped=shipped)


def _report(fits: Sequence[Fit], table: data.Table, out: str, *, shipped: bool) -> int:
    """Draw, print and return the exit code. What cannot be written does not keep back the rest."""
    text = report.table(fits, shipped=shipped)
    no_picture = output.write(out, report.picture(table, fits, shipped=shipped))
    no_text = output.show(text if no_picture else f"{text}\nPicture: {out}")
    if no_picture:
        output.complain(f"--out {out}: {no_picture}")
    if no_text:
        output.complain(f"standard output: {no_text}")
    failed = [f"{f.loss} (in {f.steps} steps)" for f in fits if not f.converged]
    if failed:
        output.complain(f"not converged: {', '.join(failed)}")
    return 2 if no_picture or no_text else int(bool(failed))


if __name__ == "__main__":
    output.prepare()
    sys.exit(main())
