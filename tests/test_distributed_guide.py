"""What ``docs/distributed.md`` says: its script, its command, and what happens when a rank ends."""

import re
import shlex
import signal
import subprocess
from pathlib import Path

import launch
import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "distributed.md"
TEXT = PAGE.read_text(encoding="utf-8")


def printed(text: str) -> list[list[float]]:
    """The numbers of each line."""
    found = [re.sub(r"[\[\],]", " ", line).split() for line in text.splitlines() if "[[" in line]
    return [[float(word) for word in line] for line in found]


def test_the_script_prints_the_same_on_two_ranks(tmp_path: Path) -> None:
    """All three parts of it, as one program."""
    program = tmp_path / "train.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)))
    (command,) = re.findall(r"```sh\n(.*?)\n```", TEXT, re.DOTALL)
    tool, *arguments = shlex.split(command)
    assert (tool, *arguments[-2:]) == ("mlx.launch", "python", program.name)
    (alone,) = launch.ranks(1, program, seconds=100)
    together = launch.mlx_launch(2, *arguments, folder=tmp_path, seconds=100)
    assert len(printed(alone.stdout)) == 3, alone.stdout
    assert len(printed(together.stdout)) == 3, together.stdout + together.stderr
    for one, two in zip(printed(alone.stdout), printed(together.stdout), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


ENDS = """
import os, signal, sys, time
import mlx.core as mx
rank, how = mx.distributed.init().rank(), sys.argv[1]
for i in range(10**9):
    if how == "alarm":
        signal.alarm(3)
    if i == 5 and rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raise":
            raise ValueError("bad data")
        if how == "exit":
            sys.exit()
        signal.alarm(0)
        time.sleep(1000)
    mx.eval(mx.distributed.all_sum(mx.ones(2)))
"""


@pytest.mark.full
@pytest.mark.parametrize("how", ["kill", "raise", "exit"])
def test_the_others_raise_where_a_rank_ends(how: str, tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text(ENDS)
    first, second, third = launch.ranks(3, program, how, seconds=60)
    assert second.returncode == {"kill": -signal.SIGKILL, "raise": 1, "exit": 0}[how]
    for other in (first, third):
        assert other.returncode == 1
        assert "RuntimeError: [ring] connection to a peer was lost" in other.stderr


@pytest.mark.full
@pytest.mark.parametrize("how", ["kill", "raise", "exit", "alarm"])
def test_mlx_launch_ends_where_a_rank_ends_with_an_exit_code_of_0(how: str, tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text(ENDS)
    options = ("-n", 2, "--backend", "ring")
    run = launch.mlx_launch(2, *options, "python", "ends.py", how, folder=tmp_path, seconds=60)
    assert run.returncode == 0
    code = {"kill": "1 exited with code -9", "raise": "1 exited with code 1"}
    code |= {"exit": "0 exited with code 1", "alarm": "0 exited with code -14"}
    assert f"Node with rank {code[how]} " in run.stdout + run.stderr
    assert "cannot execute" not in run.stderr


@pytest.mark.full
def test_the_others_wait_for_a_rank_that_hangs(tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text(ENDS)
    with pytest.raises(subprocess.TimeoutExpired):
        launch.ranks(2, program, "hang", seconds=10)
