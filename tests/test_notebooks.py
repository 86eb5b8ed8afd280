"""The notebooks as they are kept: run from top to bottom, light, linked, and in the README."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cases import broken_links

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_outputs_are_those_of_one_run(file: Path) -> None:
    code = [cell for cell in cells(file) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert any("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_leads_to_the_next(file: Path) -> None:
    text = "\n".join("".join(c["source"]) for c in cells(file) if c["cell_type"] == "markdown")
    assert broken_links(file.parent, text) == []
    following = [f.name for f in FILES if f.name > file.name][:1]
    assert all(f"]({name})" in text for name in following)


def test_they_are_light() -> None:
    assert sum(file.stat().st_size for file in FILES) < 5_000_000


def test_the_readme_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| \[.*?\]\((notebooks/.*?)\) \|", (ROOT / "README.md").read_text(), re.M)
    assert rows == [f"notebooks/{file.name}" for file in FILES]
    assert len(rows) == 7
