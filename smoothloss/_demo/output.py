"""Write the picture without harm to another file, and the text wherever it may go."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

SOFTWARE = "python -m smoothloss"
"""By this mark in a PNG the program knows its own pictures."""


def refusal(path: str, data: str | None, *, force: bool) -> str | None:
    """Return why there can be no picture at ``path``, which should show before the training."""
    try:
        file = Path(os.path.realpath(path))
        if file.is_dir():
            return "a directory; expected a file. Name a file in it."
        if Path(path).suffix.lower() != ".png":
            return "found no PNG; expected a name ending in .png. Rename it."
        if not file.parent.is_dir():
            return f"no folder {file.parent}; expected an existing one. Create it first."
        if os.path.lexists(file) and (problem := _precious(file, data, force=force)):
            return problem
        with _beside(file) as part:
            part.touch()
    except OSError as error:
        return f"{error.strerror}; expected a place for a file. Choose another with --out."
    return None


def _precious(file: Path, data: str | None, *, force: bool) -> str | None:
    """Return why an existing file must stay."""
    choose = "Choose another with --out"
    if data is not None and file.samefile(data):
        return f"this file holds the data; expected another one for the picture. {choose}."
    if not file.is_file():
        return f"no ordinary file; expected one, or a new name. {choose}."
    if not os.access(file, os.W_OK):
        return f"no permission; expected a file that can be written. {choose}."
    if not force and not _ours(file):
        return (
            f"a file that this program did not write; expected a new name or an earlier picture. "
            f"{choose}, or replace it with --force."
        )
    return None


def _ours(file: Path) -> bool:
    """Return whether this program wrote the file. An empty one is nobody's."""
    with file.open("rb") as opened:
        start = opened.read(1000)
    return not start or b"tEXtSoftware\0" + SOFTWARE.encode() in start


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """Lend a place for a file of that name on the same disk."""
    with TemporaryDirectory(prefix=".smoothloss-", dir=file.parent) as folder:
        yield Path(folder) / file.name


def write(path: str, content: bytes) -> str | None:
    """Write a whole file or none, and return what went wrong. Links are followed."""
    try:
        file = Path(os.path.realpath(path))
        with _beside(file) as part:
            part.write_bytes(content)
            if file.exists():
                shutil.copymode(file, part)
            part.replace(file)
    except OSError as error:
        return f"{error.strerror}; expected room for a picture. Choose another with --out."
    return None


def prepare() -> None:
    """Make a program of the process: it ends at Ctrl-C without a word, and prints anything."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A closed stream is None.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def show(text: str) -> str | None:
    """Print, and return what went wrong. A reader that has gone has seen enough."""
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still in the buffer would fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return f"{error.strerror}; expected room for the text. Direct it elsewhere."
    return None


def complain(message: str) -> None:
    """Print an error. Where this fails, the exit code has to do."""
    with contextlib.suppress(OSError):
        print(f"{SOFTWARE}: error: {message}", file=sys.stderr, flush=True)
