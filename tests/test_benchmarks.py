"""The benchmark runs over the catalogue, and the docs quote what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cases import catalog, script

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
REPORT = script("benchmarks/report.py")


def rows(name: str) -> list[dict[str, object]]:
    return json.loads((BENCHMARKS / f"{name}.json").read_text())["rows"]


def test_the_docs_and_the_log_quote_the_results() -> None:
    speed = (ROOT / "docs" / "speed.md").read_text()
    assert REPORT.markdown(rows("results")) in speed
    assert REPORT.costs(rows("results")) in speed
    assert REPORT.sites(rows("call-sites")) in speed
    assert REPORT.sites(rows("peers-call-sites"), "torch", "optax") in speed
    log = (BENCHMARKS / "LOG.md").read_text()
    for library in ("torch", "optax"):
        assert REPORT.markdown(rows("peers-1-core"), library) in log


def test_every_call_of_a_real_program_is_measured() -> None:
    """Eager and compiled, forward and with the gradient."""
    for name, others in (("call-sites", {"mlx.nn"}), ("peers-call-sites", {"mlx.nn", "torch"})):
        found = rows(name)
        assert len(found) == 4 * len({(r["loss"], *r["dims"], r["dtype"]) for r in found}) == 64
        assert all(others <= {*row["ratio"]} for row in found)
        assert all("optax" in row["ratio"] for row in found if row["compiled"] and len(others) > 1)


@pytest.mark.full
def test_it_runs_over_the_catalogue(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--out", str(tmp_path / "quick")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "quick.json").read_text())["rows"]
    kernels = {entry.name: entry.textbook.kernels for entry in catalog()}
    assert {row["loss"] for row in found} == set(kernels)
    for row in found:
        assert all(t > 0 for quartiles in row["seconds"].values() for t in quartiles)
        # The graph, not the clock.
        claimed = kernels[row["loss"]]
        assert row["kernels"] <= (claimed + 4 * (claimed > 2) if row["compiled"] else 0)
