"""What ``docs`` makes: the tables and the picture of the losses, and the fit of log Z."""

import json
import os
import re
from pathlib import Path

import mlx.core as mx
import pytest
from cases import broken_links, catalog, script

import smoothloss as sl
from smoothloss.losses._partition import KNOTS, log_z, log_z_alpha

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("page", "kind"), [("README.md", "calls"), ("docs/losses.md", "table")])
def test_the_page_quotes_the_table(page: str, kind: str) -> None:
    table = getattr(script("docs/family.py"), kind)()
    assert table in (ROOT / page).read_text()
    _, _, *rows = table.splitlines()
    assert [row.split("`")[1].split("(")[0] for row in rows] == [e.name for e in catalog()]
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1


def test_the_page_quotes_the_thresholds() -> None:
    page = (ROOT / "docs/regression.md").read_text()
    assert script("docs/family.py").tuned() in page
    bench = script("benchmarks/irls.py")
    assert bench.markdown(json.loads(bench.OUT.read_text())) in page


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert broken_links(page.parent, text) == []
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert any((ROOT / "tests").rglob(name)), name


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    script("docs/family.py").picture(tmp_path / "family.png")
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.9])
@pytest.mark.float64
def test_the_fit_of_log_z_is_that_of_the_quadrature(alpha: float) -> None:
    partition = script("docs/partition.py")
    assert partition.KNOTS == KNOTS
    value, slope, _ = partition.reference(alpha)
    at = mx.array(alpha, mx.float64)
    assert log_z(at).item() == pytest.approx(float(value), abs=1e-6)
    assert log_z_alpha(at).item() == pytest.approx(float(slope), abs=1e-6)


EXPORT = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("code", EXPORT, ids=["shapeless", "a loss", "a step"])
def test_the_examples_of_exporting_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/export.md", "exec"), {})


def test_the_errors_that_the_page_names_are_those_of_mlx() -> None:
    text = " ".join((ROOT / "docs/export.md").read_text().split())
    f = lambda x: sl.l1_loss(x, x)
    for attempt, words in (
        (lambda: mx.eval(mx.compile(f, shapeless=True)(mx.ones(3))), "CustomTransforms cannot"),
        (lambda: mx.export_function(os.devnull, f, mx.ones(3)), "Unable to serialize primitive"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            attempt()
        (quoted,) = (q for q in re.findall(r'\*\*"(.*?)"\*\*', text) if words in q)
        assert quoted in str(caught.value)
