"""What ``docs`` makes: the table and the picture of the losses, and the fit of log Z."""

from pathlib import Path

import mlx.core as mx
import pytest
from cases import script

from smoothloss._catalog import catalog
from smoothloss.losses._partition import POLES, log_z, log_z_alpha

ROOT = Path(__file__).parents[1]


def test_the_readme_quotes_the_table() -> None:
    assert script("docs/family.py").table() in (ROOT / "README.md").read_text()


def test_the_table_has_a_row_per_loss() -> None:
    _, _, *rows = script("docs/family.py").table().splitlines()
    assert [row.split("`")[1] for row in rows] == [entry.name for entry in catalog()]
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    script("docs/family.py").picture(tmp_path / "family.png")
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.9])
def test_the_fit_of_log_z_is_that_of_the_quadrature(alpha: float) -> None:
    partition = script("docs/partition.py")
    assert partition.POLES == POLES
    value, slope, _ = partition.reference(alpha)
    at = mx.array(alpha, mx.float64)
    assert log_z(at).item() == pytest.approx(float(value), abs=1e-6)
    assert log_z_alpha(at).item() == pytest.approx(float(slope), abs=1e-6)
