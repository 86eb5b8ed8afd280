"""Programs on several ranks of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def free_ports(count: int) -> int:
    """The first of ``count`` free ports in a row, below those that the system hands out.

    Each worker of pytest has a range of its own.
    """
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


def environment(**more: str) -> dict[str, str]:
    """That of this process, with its Python and the modules that it finds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "PATH": path, "PYTHONPATH": modules, **more}


def ranks(count: int, *arguments: object, seconds: float) -> list[subprocess.CompletedProcess[str]]:
    """Run a program on some ranks, as ``mlx.launch`` does, and end it after some seconds.

    ``mlx.launch`` looks at its pipes all the time, so the ranks of a machine with two cores wait
    for it: one sum takes 80 ms in place of 3.
    """
    first, end = free_ports(count), time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        hosts = Path(stack.enter_context(tempfile.TemporaryDirectory()), "hosts.json")
        hosts.write_text(json.dumps([[f"127.0.0.1:{first + k}"] for k in range(count)]))
        processes = []
        for k in range(count):
            place = {"MLX_RANK": str(k), "MLX_HOSTFILE": str(hosts)} if count > 1 else {}
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(**place),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        said = [p.communicate(timeout=max(0, end - time.monotonic())) for p in processes]
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *texts)
        for p, texts in zip(processes, said, strict=True)
    ]


def mlx_launch(
    count: int, *arguments: object, folder: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run ``mlx.launch`` in a folder, and end all its ranks after some seconds."""
    tool = str(Path(sys.executable).with_name("mlx.launch"))
    command = [tool, "--starting-port", str(free_ports(count)), *map(str, arguments)]
    # It looks at its input all the time once that has ended, so it gets one that does not end.
    reading, writing = os.pipe()
    try:
        with subprocess.Popen(
            command,
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the ranks can be ended with it
            env=environment(),
            cwd=folder,
        ) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        os.close(reading)
        os.close(writing)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
