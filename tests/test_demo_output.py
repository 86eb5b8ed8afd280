"""What the demo does to files and streams: no file is harmed, and no traceback shown."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smoothloss.__main__ import main

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

PNG = b"\x89PNG\r\n\x1a\n"
CSV = b"1,2\n2,3\n3,5\n"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def draw(*arguments: str) -> int:
    return main(["--loss", "mse", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the error, which is one line."""
    with pytest.raises(SystemExit) as stop:
        draw(*arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    return err


# The picture


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("", "a directory; expected a file"),
        (".", "a directory; expected a file"),
        ("missing/x.png", "expected an existing one. Create it first"),
        ("x.svg", "expected a name ending in .png"),
        ("a" * 300 + ".png", "File name too long; expected"),
        ("file/x.png", "expected an existing one"),
    ],
)
def test_no_place(out: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    message = refused(capsys, "--out", out)
    assert f"--out {out}: " in message
    assert expected in message


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "link to itself"])
def test_no_ordinary_file(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "pipe":
        os.mkfifo("x.png")
    else:
        Path("x.png").symlink_to(os.devnull if kind == "link to a device" else "x.png")
    assert "no ordinary file; expected one" in refused(capsys, "--out", "x.png", "--force")


def test_a_second_picture_replaces_the_first() -> None:
    assert draw() == 0
    Path("phones.png").chmod(0o640)
    first = Path("phones.png").read_bytes()
    assert draw("--loss", "l1") == 0
    assert Path("phones.png").read_bytes() not in (b"", first)
    assert Path("phones.png").stat().st_mode & 0o777 == 0o640
    assert os.listdir() == ["phones.png"]


def test_a_new_picture_has_the_usual_mode() -> None:
    Path("usual").touch()
    assert draw() == 0
    assert Path("phones.png").stat().st_mode == Path("usual").stat().st_mode


@pytest.mark.parametrize("content", [b"Try python -m smoothloss", PNG + b"holiday"])
def test_the_file_of_another_stays(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("x.png")
    file.write_bytes(content)
    assert "replace it with --force" in refused(capsys, "--out", "x.png")
    assert file.read_bytes() == content
    assert draw("--out", "x.png", "--force") == 0
    assert file.read_bytes().startswith(PNG)


def test_an_empty_file_is_no_loss() -> None:
    Path("x.png").touch()
    assert draw("--out", "x.png") == 0


@pytest.mark.parametrize("out", ["data.png", "./data.png", "soft.png", "hard.png", None])
def test_the_data_stay(out: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path("data.png")
    data.write_bytes(CSV)
    Path("soft.png").symlink_to(data)
    Path("hard.png").hardlink_to(data)
    chosen = ["--out", out] if out else []
    assert "holds the data" in refused(capsys, "--data", "data.png", "--force", *chosen)
    assert data.read_bytes() == CSV


def test_links_are_followed() -> None:
    Path("folder").mkdir()
    Path("x.png").symlink_to("folder/there.png")
    assert draw("--out", "x.png") == draw("--out", "x.png") == 0
    assert Path("x.png").is_symlink()
    assert os.listdir("folder") == ["there.png"]


def test_a_protected_picture_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw() == 0
    capsys.readouterr()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "no permission; expected" in refused(capsys, "--force")


# Streams, signals and limits of a process


def start(*arguments: str, shell: str = 'exec "$@"', **options: Any) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "smoothloss", "--loss", "mse", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(["sh", "-c", shell, "sh", *program], **{**pipes, **options})


def test_full_disk_leaves_the_old_picture() -> None:
    assert draw() == 0
    old = Path("phones.png").read_bytes()
    limited = 'ulimit -f 2; exec "$@"'
    process = start(shell=limited, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out.startswith(b"loss")
    assert b"Picture" not in out
    assert err.startswith(b"python -m smoothloss: error: --out phones.png: File too large; exp")
    assert err.count(b"\n") == 1
    assert Path("phones.png").read_bytes() == old
    assert os.listdir() == ["phones.png"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_nobody_reads(arguments: tuple[str, ...], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*arguments, stdout=write, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert Path("phones.png").exists() == (not arguments)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_full_stdout(arguments: tuple[str, ...], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        process = start(*arguments, stdout=full, env=environment)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith(b"python -m smoothloss: error: standard output: No space left on device")
    assert err.count(b"\n") == 1
    assert Path("phones.png").exists() == (not arguments)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_stderr() -> None:
    with open("/dev/full", "wb") as full:
        process = start("--out", "x", stderr=full)
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 2


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_stream(closed: int) -> None:
    process = start(shell=f'exec "$@" {closed}>&-')
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"loss" if closed == 2 else b"")
    assert Path("phones.png").exists()


def test_ctrl_c_says_nothing() -> None:
    os.mkfifo("my.csv")
    # A program started in the background may ignore the signal, and its children with it.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start("--data", "my.csv", preexec_fn=heeding)
    with open("my.csv", "wb"):  # opens when the program does
        for _ in range(5):  # a signal between its opening and its reading waits for the next
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=3)
                break
            except subprocess.TimeoutExpired:
                continue
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("name", ["größe 📞.csv".encode(), b"\xff.csv"])
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
        {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
    ],
)
def test_any_name_in_any_locale(name: bytes, locale: dict[str, str]) -> None:
    data = os.fsdecode(name)
    try:
        Path(data).write_bytes(CSV)
    except OSError:
        pytest.skip("this file system has no such names")
    environment = {**os.environ, **locale}
    process = start("--data", data, env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[-1].startswith(b"Picture: ")
    assert Path(data).with_suffix(".png").exists()
    process = start("--data", data + "x", env=environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"no such file" in err
    assert err.count(b"\n") == 1
