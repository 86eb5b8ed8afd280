"""Programs on several ranks of this machine, started by ``mlx.launch``."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_ports(count: int) -> int:
    """The first of ``count`` free ports in a row, below those that the system hands out."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    while True:
        first = 10_000 + 1000 * (worker % 20) + random.SystemRandom().randrange(1000 - count)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for i, s in enumerate(sockets):
                s.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()


def launch(ranks: int, *arguments: object, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program on some ranks, and end all of them after some seconds."""
    command = [
        *(sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"),
        *("-n", str(ranks), "--backend", "ring", "--starting-port", str(free_ports(ranks))),
        *("--python", sys.executable, *map(str, arguments)),
    ]
    # mlx.launch looks at its input all the time once that has ended, so it gets one that does not.
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        command,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the ranks end with it
        env=environment,
        cwd=ROOT,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{out}\n{err}") from None
    finally:
        os.close(reading)
        os.close(writing)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
