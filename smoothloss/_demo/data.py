"""Tables of two numeric columns, read from CSV. Every error names its cure."""

from __future__ import annotations

import csv
import io
import math
from importlib import resources
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]

# Standardised values and beta, which is 1 in units of y, have to fit into float32.
LARGEST = 1e30


class DataError(ValueError):
    """A table that cannot be fitted."""


class Table(NamedTuple):
    """The columns x and y and their names."""

    x_name: str
    y_name: str
    x: Column
    y: Column


def phones() -> Table:
    """International phone calls from Belgium, in millions, by year (19xx).

    From 1964 to 1969, and in parts of 1963 and 1970, minutes were recorded instead of calls. From
    P. J. Rousseeuw, A. M. Leroy, "Robust Regression and Outlier Detection", Wiley, 1987, chapter 2,
    in the units of R's MASS::phones.
    """
    file = resources.files("smoothloss") / "data" / "phones.csv"
    return parse(file.read_text(encoding="utf-8"), "phones.csv")


def read(path: str) -> Table:
    """Read a CSV file; see :func:`parse`."""
    wanted = "expected a CSV file of two numeric columns"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {wanted}. Check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a directory; {wanted}. Name a file in it.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start}); "
            f"{wanted}. Save it as CSV in UTF-8."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {wanted}. Make it readable.") from None
    return parse(text, path)


def parse(text: str, source: str) -> Table:
    """Read one point a line, x and y separated by a comma; blank lines are skipped.

    A first line without any number names the columns, else they are "x" and "y".
    """
    rows = _rows(text, source)
    names = ["x", "y"]
    if rows and all(_number(cell) is None for cell in rows[0][1]):
        names = [_shown(cell) or name for cell, name in zip(rows.pop(0)[1], names, strict=True)]
    points = []
    for line, cells in rows:
        for column, (name, cell) in enumerate(zip(names, cells, strict=True), 1):
            if (value := _number(cell)) is None or not abs(value) <= LARGEST:
                wanted = "a number" if value is None else f"a finite number up to {LARGEST:g}"
                raise DataError(
                    f"{source}, line {line}, column {column} ({name}): found {short(cell)}, "
                    f"expected {wanted}. Correct it or delete the line."
                )
        points.append([float(cell) for cell in cells])
    if len(points) < 3:
        raise DataError(
            f"{source}: points found: {len(points)}; expected at least 3, since any two are on a "
            f"line. Add data."
        )
    x, y = np.array(points, np.float64).T
    _check_spread(source, names, x, y)
    return Table(names[0], names[1], x, y)


def _rows(text: str, source: str) -> list[tuple[int, list[str]]]:
    """Return the lines that are not blank, as (line number, cells)."""
    reader = csv.reader(io.StringIO(text, newline=None), strict=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if len(cells) != 2:
                raise DataError(
                    f"{source}, line {reader.line_num}: {len(cells)} column"
                    f"{'s' * (len(cells) != 1)}; expected 2 (x and y), separated by a comma, with "
                    f"decimal points. Keep two columns."
                )
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{source}, line {reader.line_num}: not CSV ({error}); expected two numbers, separated "
            f"by a comma. Correct the line."
        ) from None
    return rows


def _shown(name: str) -> str:
    """Return a name that fits into one line of a picture or a terminal, and does nothing there."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return printable if len(printable) <= 40 else printable[:39] + "…"


def _number(text: str) -> float | None:
    try:
        # Python would read 1_000 as a number; no other program does.
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _check_spread(source: str, names: list[str], x: Column, y: Column) -> None:
    if x.min() == x.max():
        raise DataError(
            f"{source}, column 1 ({names[0]}): every value is {x[0]:g}; expected at least two "
            f"different x, as a vertical line has no slope. Swap the columns or add data."
        )
    for number, (name, column) in enumerate(zip(names, (x, y), strict=True), 1):
        spread: np.floating[Any] = column.max() - column.min()
        if 0 < spread < 1 / LARGEST or not math.isfinite(spread):
            raise DataError(
                f"{source}, column {number} ({name}): the values differ by {spread:g} at most; "
                f"expected at least {1 / LARGEST:g}. Change the unit of the column."
            )
