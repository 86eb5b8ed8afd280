"""The Makefile with a Python that is too old, with a broken .venv, and what it must not touch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import script

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Says that it is of some version, and writes down what it would install.
PYTHON = """#!{python}
import pathlib, shutil, sys
me, *arguments = sys.argv
if arguments == ["--version"]:
    print("Python {major}.{minor}.1")
elif arguments[0] == "-c":
    sys.version_info = ({major}, {minor}, 1)
    exec(arguments[1])
else:
    with open("log", "a") as log:
        print(*arguments, file=log)
    if arguments[:3] == ["-m", "venv", "--clear"]:
        shutil.rmtree(arguments[3], ignore_errors=True)
        bin = pathlib.Path(arguments[3], "bin")
        bin.mkdir(parents=True)
        shutil.copy(me, bin / "python")
"""


def fake(file: Path, version: str) -> str:
    major, minor = version.split(".")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PYTHON.format(python=sys.executable, major=major, minor=minor))
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    # As if nobody had called make before: `make test` has.
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)


def log(folder: Path) -> str:
    file = folder / "log"
    return file.read_text() if file.exists() else ""


def test_a_python_that_is_too_old_makes_nothing(checkout: Path) -> None:
    old = fake(checkout / "old", "3.9")
    before = {*checkout.iterdir()}
    run = make(checkout, "test", f"PYTHON={old}")
    assert run.returncode != 0
    said, *rest = run.stderr.splitlines()
    assert said.startswith(f"smoothloss needs Python 3.10 or newer, and {old} is Python 3.9.1:")
    assert said.endswith("make test PYTHON=python3.12")
    assert all(line.startswith("make: ***") for line in rest)
    assert {*checkout.iterdir()} == before


def test_a_python_that_is_missing(checkout: Path) -> None:
    run = make(checkout, "PYTHON=no-such-python")
    assert run.returncode != 0
    assert "smoothloss needs Python 3.10 or newer" in run.stderr
    assert "make demo PYTHON=" in run.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("venv", ["none", "of an old Python", "broken"])
def test_a_newer_python_then_works(checkout: Path, venv: str) -> None:
    python = checkout / ".venv" / "bin" / "python"
    if venv == "of an old Python":
        fake(python, "3.9")
    elif venv == "broken":
        python.parent.mkdir(parents=True)
        python.symlink_to("no-such-python")
    new = fake(checkout / "new", "3.12")
    run = make(checkout, ".venv/.setup", f"PYTHON={new}")
    assert run.returncode == 0, run.stderr
    assert "--clear .venv\n-m pip install" in log(checkout)
    assert make(checkout, "-q", ".venv/.setup").returncode == 0  # and is done


def test_a_good_venv_is_kept_whatever_python3_is(checkout: Path) -> None:
    fake(checkout / ".venv" / "bin" / "python", "3.11")
    run = make(checkout, ".venv/.setup", f"PYTHON={fake(checkout / 'old', '3.9')}")
    assert run.returncode == 0, run.stderr
    assert "venv" not in log(checkout)
    assert "-m pip install --quiet --editable" in log(checkout)


def test_the_oldest_versions_are_those_of_the_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    bounds = text.split("\ndependencies = ")[1].splitlines()[0]
    oldest = text.split("\noldest = ")[1]
    for name in ("mlx", "numpy"):
        bound = bounds.split(f'"{name}>=')[1].split('"')[0]
        assert f'"{name}=={bound}' in oldest


def test_a_benchmark_keeps_the_results_that_the_docs_quote(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = [f"--out benchmarks/{file.stem}" for file in (ROOT / "benchmarks").glob("*.json")]
    assert committed
    for goal in ("bench", "bench-peers"):
        ours, theirs = (make(checkout, "-n", goal, *to).stdout for to in ([], ["OUT=benchmarks"]))
        assert not any(out in ours for out in committed)
        assert any(out in theirs for out in committed)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert script("benchmarks/run.py").options().out == ROOT / "benchmarks" / "mine" / "results"
