"""Every number of docs/parity.md, whose tables are evaluated.

When a newer version mends a row, its test fails and the row can go.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import keras
import ml_dtypes
import numpy as np
import optax
import pytest
import torch
from peers.calls import SUM_ULPS, ULPS, as_numpy, grad, grad2, value
from scipy import special
from sklearn import metrics
from sklearn.linear_model import HuberRegressor
from statsmodels.robust import norms, scale
from statsmodels.robust.robust_linear_model import RLM

import smoothloss as sl

TEXT = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
NAMES = vars(np) | {
    "Subclass": type("Subclass", (torch.Tensor,), {}),
    "value": value,
    "grad": grad,
    "grad2": grad2,
    "sl": sl,
    "torch": torch,
    "F": torch.nn.functional,
    "jax": jax,
    "jnp": jax.numpy,
    "optax": optax,
    "K": keras.losses,
    "special": special,
    "metrics": metrics,
    "norms": norms,
    "scale": scale,
    "RLM": RLM,
    "HuberRegressor": HuberRegressor,
    "as_numpy": as_numpy,
}


def rows() -> Iterator[Any]:
    """Each row of the tables, by column. A blank name is that of the row above."""
    for heading, section in re.findall(r"^##+ (.*)\n((?:(?!##).*\n)*)", TEXT, re.MULTILINE):
        columns: list[str] = []
        name = ""
        for line in section.splitlines():
            cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
            if not columns:
                columns = cells
            elif cells and set(cells[0]) != {"-"}:
                name = cells[0] or name
                row = dict(zip(columns, cells, strict=True))
                yield pytest.param(row, id=f"{row.get('library', heading)}: {name}")


ROWS = list(rows())


def outcome(expression: str) -> Any:
    """Its value, as an array if it is a number, or the name of its error."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            got = eval(expression, NAMES)
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        return type(error).__name__
    if isinstance(got, tuple):
        return str(got)
    return (as_numpy(got) if hasattr(got, "dtype") else np.float64(got)).reshape(())


def same(got: Any, cell: str, within: float = 1e-3) -> bool:
    if isinstance(got, str) or cell.endswith("Error"):
        return str(got) == cell
    return np.isclose(float(got), float(cell), rtol=within, atol=0, equal_nan=True).item()


@pytest.mark.parametrize("row", ROWS)
def test_row(row: dict[str, str]) -> None:
    theirs, ours = outcome(row["call"]), outcome(row["here"])
    assert same(theirs, row["it gives"])
    assert same(ours, row["it gives here"])
    assert row["it gives"] != row["it gives here"]
    if "exact" in row:
        eps = 0 if isinstance(ours, str) else float(ml_dtypes.finfo(ours.dtype).eps)
        assert same(ours, row["exact"], 4 * eps)
        assert not same(theirs, row["exact"])


def test_every_row_is_read_and_has_a_name_of_its_own() -> None:
    assert len(ROWS) == len({row.id for row in ROWS})
    assert len(ROWS) == TEXT.count("\n| ") - TEXT.count("\n| name |")


def test_versions() -> None:
    for library, number in re.findall(r"^### (\S+) ([\d.]+)$", TEXT, re.MULTILINE):
        assert version({"PyTorch": "torch"}.get(library, library)).split("+")[0] == number


def test_bounds() -> None:
    assert f"agree to {ULPS} ulp, and\nreductions to {SUM_ULPS} ulp" in TEXT
