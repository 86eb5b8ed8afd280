"""What other devices do, on this CPU. Each function changes MLX for the whole process."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

BUILD = Path(__file__).parents[1] / "build" / "emulated"


def _made(file: Path, write: Callable[[Path], object]) -> Path:
    """A file that several processes may want at once."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as own:
            write(Path(own) / file.name)
            (Path(own) / file.name).replace(file)
    return file


class ImpossibleError(Exception):
    """This machine lacks what an emulation needs."""


def _needs_gcc_on_x86() -> None:
    if platform.machine() not in ("x86_64", "AMD64") or not shutil.which("g++"):
        raise ImpossibleError("it needs g++ and an x86 processor")


def fuse() -> None:
    """Compile kernels as for arm64 and GPUs, where a*b + c is one instruction, rounded once."""
    _needs_gcc_on_x86()
    if str(BUILD) in os.environ["PATH"]:
        return  # the parent process did

    def wrapper(file: Path) -> None:
        real = shutil.which("g++")
        file.write_text(f'#!/bin/sh\nexec "{real}" "$@" -mfma -ffp-contract=fast\n')
        file.chmod(0o755)

    compiler = _made(BUILD / "bin" / "g++", wrapper)
    os.environ["PATH"] = f"{compiler.parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["TMPDIR"] = tempfile.tempdir = str(BUILD)  # where MLX keeps its kernels


FLUSH = """
#include <xmmintrin.h>
extern "C" unsigned exchange(unsigned control) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(control);
    return before;
}
"""


def flush() -> None:
    """Take subnormal numbers for 0, arguments and results, as Apple's GPUs do.

    The thread that computes for MLX inherits this; NumPy and the oracle, on this one, do not.
    """

    _needs_gcc_on_x86()

    def build(file: Path) -> None:
        command = ["g++", "-x", "c++", "-shared", "-fPIC", "-o", str(file), "-"]
        subprocess.run(command, input=FLUSH, text=True, check=True)

    exchange = ctypes.CDLL(str(_made(BUILD / "flush.so", build))).exchange
    before = exchange(0x1F80 | 0x8040)  # the default, flush to zero, denormals are zero
    mx.eval(mx.zeros(1) + 1)  # starts the thread
    exchange(before)


def no_float64() -> None:
    """Call this CPU a GPU, and refuse float64 as MLX does on every GPU: in all but bare data."""
    cpu, gpu = mx.Device(mx.cpu), mx.Device(mx.gpu)
    default = [cpu]

    def device(of: Any) -> mx.Device:
        of = getattr(of, "device", of)
        return of if isinstance(of, mx.Device) else mx.Device(of)

    class Stream:
        def __init__(self, of: Any) -> None:
            self.device = device(of)

        def __enter__(self) -> None:
            self.before, default[0] = default[0], self.device

        def __exit__(self, *exception: object) -> None:
            default[0] = self.before

    def dtypes(tree: Any) -> Iterator[mx.Dtype]:
        if isinstance(tree, mx.array):
            yield tree.dtype
        elif isinstance(tree, (list, tuple, dict)):
            for value in tree.values() if isinstance(tree, dict) else tree:
                yield from dtypes(value)

    def refuse(*trees: Any, stream: Any = None) -> None:
        on = default[0] if stream is None else device(stream)
        if on == gpu and mx.float64 in dtypes(trees):
            raise ValueError("float64 is not supported on the GPU")

    def refusing(f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def operation(*args: Any, **keywords: Any) -> Any:
            out = f(*args, **keywords)
            if any(dtypes(out)):  # else it computes nothing
                refuse(out, args, keywords, stream=keywords.get("stream"))
            return out

        return operation

    make = mx.array.__init__

    def init(self: mx.array, value: Any, dtype: mx.Dtype | None = None) -> None:
        make(self, value, dtype)
        if isinstance(value, mx.array) and value.dtype != self.dtype:
            refuse(self, value)

    data = {"asarray", "from_dlpack", "load", "__copy__", "__deepcopy__"}
    for home in (mx, mx.random, mx.array):
        for name, f in list(vars(home).items()):
            if type(f).__name__ in ("nb_func", "nb_method") and name not in data:
                setattr(home, name, refusing(f))
    mx.array.__init__ = init
    mx.default_device = lambda: default[0]
    mx.set_default_device = lambda to: default.__setitem__(0, device(to))
    mx.stream = Stream
