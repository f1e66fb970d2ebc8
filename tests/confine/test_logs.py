# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable crash` reads in a confined process: what goes wrong in there is a doubt with a name, never HEALTHY."""

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import Reading, follow_all, read_all
from ejectable.assess.logs import sources
from ejectable.cli.app import run
from ejectable.crash.reader import Reader
from ejectable.errors import Ended
from ejectable.model import Status
from tests.crash.fixtures import FIXTURES, load

DEFECT = load(next(path for path in FIXTURES if path.stem == "defect-disk-acpi-eject-printk")).log
HEALTHY = b"[    1.000000] Linux version 6.8.0 (x)\n" * 3
EVIL = b"[    1.000000] Linux version 6.8.0-evil (x)\n"
feed = Reader.feed


def _fill() -> None:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def _recurse() -> None:
    _recurse()


def _spin() -> None:
    while True:
        pass


MISBEHAVIOURS: dict[str, Callable[[], object]] = {
    "opens a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "writes a file": lambda: Path("/tmp/ejectable-misbehaves").write_bytes(b"x"),
    "makes a socket": socket.socket,
    "runs a program": lambda: os.execv("/bin/true", ["true"]),
    "forks": os.fork,
    "kills its parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "dies": os.abort,
    "is killed": lambda: os._exit(0),
    "takes all memory": _fill,
    "recurses": _recurse,
    "has a bug": lambda: 1 // 0,
}


def misbehaves(monkeypatch: pytest.MonkeyPatch, how: Callable[[], object]) -> None:
    """From here on a reader that is fed the bad log does this, and in this process none may read at all."""
    parent = os.getpid()

    def evil(reader: Reader, data: bytes) -> object:
        assert os.getpid() != parent, "a log is read outside"
        if b"evil" in data:
            how()
        return feed(reader, data)

    monkeypatch.setattr(Reader, "feed", evil)


def read(*paths: Path, jobs: int = 1) -> Reading:
    return read_all(sources(map(str, paths)), choose(()), jobs=jobs)


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_a_parser_that_misbehaves_gets_nothing_and_is_never_healthy(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(EVIL)
    misbehaves(monkeypatch, MISBEHAVIOURS[what])
    reading = read(path)
    assert reading.status is Status.UNKNOWN
    assert not Path("/tmp/ejectable-misbehaves").exists()
    code = run(["crash", str(path)])
    said = capsys.readouterr().out
    assert "HEALTHY" not in said
    assert code == (70 if what in ("has a bug", "recurses") else 69 if "file" in what or what in REFUSED else 3)


REFUSED = ("forks", "kills its parent")  # the system says no, and the reader ends with that


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_bad_log_costs_no_other_its_verdict(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ejectable.assess.logs.SMALL", 0)
    for name, data in (("a", HEALTHY), ("b", EVIL), ("c", DEFECT), ("d", EVIL), ("e", HEALTHY)):
        (tmp_path / name).write_bytes(data)
    misbehaves(monkeypatch, os.abort)
    reading = read(tmp_path, jobs=jobs)
    assert reading.status is Status.AFFECTED
    assert [doubt.where for doubt in reading.suspicious] == [str(tmp_path / "b"), str(tmp_path / "d")]
    (tmp_path / "c").unlink()
    assert read(tmp_path, jobs=jobs).status is Status.UNKNOWN


def archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in (("one", HEALTHY), ("two", DEFECT)):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize(
    "data", [DEFECT, gzip.compress(DEFECT), archive(), json.dumps({"Output": DEFECT.decode()}).encode()]
)
def test_nothing_of_a_log_is_read_outside(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it unpacked, or looked at to see what it is."""
    path = tmp_path / "log"
    path.write_bytes(data)
    parent = os.getpid()
    for place in ("ejectable.crash.inputs.sniff", "ejectable.crash.inputs.is_tar", "ejectable.crash.inputs._part"):
        module, _, name = place.rpartition(".")
        looks = getattr(sys.modules[module], name)

        def inside(*given: object, looks: Callable[..., object] = looks) -> object:
            assert os.getpid() != parent, "a log is looked at outside"
            return looks(*given)

        monkeypatch.setattr(place, inside)
    misbehaves(monkeypatch, os.abort)
    assert read(path).status is Status.AFFECTED
    assert read(path, path).status is Status.AFFECTED
    assert read(tmp_path).status is Status.AFFECTED


def test_a_log_that_is_followed_is_read_in_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(DEFECT)
    misbehaves(monkeypatch, os.abort)
    following = follow_all(str(path), choose(()))
    _, said = next(following)
    assert said.status is Status.AFFECTED
    with path.open("ab") as file:
        file.write(EVIL)
    with pytest.raises(Ended, match="killed by SIG"):
        list(following)


def test_a_follower_that_ends_badly_is_unknown_and_says_so(tmp_path: Path) -> None:
    """A person sees the reason at once, and a script sees 3."""
    script = (
        "import os, sys\nfrom ejectable.crash.reader import Reader\n"
        "Reader.feed = lambda self, data: os.abort()\n"
        "from ejectable.cli.app import run\nsys.exit(run(['crash', '--follow', '--format', sys.argv[1]]))\n"
    )
    for form in ("text", "jsonl", "json"):
        done = subprocess.run([sys.executable, "-c", script, form], input=HEALTHY, capture_output=True, check=False)
        assert done.returncode == 3, done.stderr
        assert b"killed by SIG" in done.stderr
        if form == "json":
            document = json.loads(done.stdout)
            assert document["status"] == "unknown"
            assert "killed by SIG" in document["doubts"][0]["detail"]


@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
def test_too_little_memory_is_unknown_and_never_healthy(packed: str, tmp_path: Path) -> None:
    import zstandard

    data = HEALTHY * 400_000
    path = tmp_path / "log"
    data += DEFECT
    if packed != "plain":
        data = gzip.compress(data) if packed == "gzip" else zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    codes = set()
    for mib in (34, 40, 46, 60, 200):
        command = ["prlimit", f"--as={mib << 20}", sys.executable, "-m", "ejectable", "crash", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (2, 3, 69), done.stdout + done.stderr
        assert "HEALTHY" not in done.stdout
        assert done.returncode == 2 or "memory" in done.stdout + done.stderr
        codes.add(done.returncode)
    assert 2 in codes


def test_a_reader_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(EVIL)
    misbehaves(monkeypatch, _spin)
    monkeypatch.setattr("ejectable.assess.logs.FILE_S", 1)
    began = time.monotonic()
    reading = read(path)
    assert time.monotonic() - began < 20
    assert reading.status is Status.UNKNOWN
    assert "stopped after 1 seconds" in reading.suspicious[0].detail
