# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH211  (an exploit makes system calls)
"""A confined child can compute, answer, and ask for files; and nothing else, whoever runs it."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.confine import Fence, ask, confined, run, seccomp
from ejectable.errors import BadInput, DamagedInput, Denied, Ended, Missing, OurFault
from ejectable.intake import Root, open_regular
from ejectable.intake.outside import opening

SOURCES = Path(__file__).parents[2] / "src"
needs_seccomp = pytest.mark.skipif(not seccomp.supported(), reason="the calls of this processor are not known")


def test_the_answer_comes_back_with_its_type() -> None:
    assert run(lambda: {"a": (1, 2)}, into=dict[str, tuple[int, int]]) == {"a": (1, 2)}
    assert run(lambda: "name-\udcff", into=str) == "name-\udcff"
    assert not confined()
    assert run(confined, into=bool)


def test_work_inside_of_work_needs_no_second_child() -> None:
    assert run(lambda: run(os.getpid, into=int) == os.getpid(), into=bool)


@pytest.mark.parametrize("kind", [BadInput, DamagedInput, Missing, Denied])
def test_an_error_is_the_same_error_outside(kind: type[BadInput | Missing]) -> None:
    def work() -> None:
        raise kind("a sentence", hint="a way out")

    with pytest.raises(kind, match="a sentence") as raised:
        run(work, into=None)
    assert type(raised.value) is kind
    assert raised.value.hint == "a way out"


def test_a_bug_is_a_fault_of_ours() -> None:
    with pytest.raises(OurFault, match="ZeroDivisionError"):
        run(lambda: 1 // 0, into=int)


ATTACKS: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "open its own memory": lambda: os.open("/proc/self/mem", os.O_RDWR),
    "write a file": lambda: os.open("/tmp/ejectable-attack", os.O_WRONLY | os.O_CREAT),
    "make a nameless file": lambda: os.open("/tmp", os.O_TMPFILE | os.O_RDWR),
    "make a folder": lambda: os.mkdir("/tmp/ejectable-attack"),
    "make a link": lambda: os.symlink("/etc/passwd", "/tmp/ejectable-attack"),
    "remove": lambda: os.unlink("/etc/hostname"),
    "rename": lambda: os.rename("/etc/hostname", "/etc/hostname.old"),
    "change a mode": lambda: os.chmod("/etc/hostname", 0o777),
    "make a pipe": os.pipe,
    "start a process": os.fork,
    "send a signal": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "become root": lambda: os.setuid(0),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
}


@needs_seccomp
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_exploit_finds_nothing_to_do(attack: str) -> None:
    def work() -> str:
        try:
            ATTACKS[attack]()
        except (OSError, ValueError) as error:
            return type(error).__name__
        return "it could"

    assert run(work, into=str) in ("PermissionError", "OSError", "ValueError")


@needs_seccomp
@pytest.mark.parametrize("attack", [socket.socket, lambda: os.execv("/bin/true", ["true"])])
def test_who_tries_what_nothing_of_ours_does_is_killed(attack: Callable[[], object]) -> None:
    def work() -> str:
        with contextlib.suppress(OSError):
            attack()
        return "an answer that nobody must believe"

    with pytest.raises(Ended, match="killed by SIGSYS"):
        run(work, into=str)


@needs_seccomp
def test_nothing_that_was_open_is_left_open() -> None:
    with Path("/etc/passwd").open("rb") as file:
        number = file.fileno()

        def work() -> bool:
            try:
                return bool(os.read(number, 1))
            except OSError:
                return False

        assert not run(work, into=bool)


def test_root_is_nobody_in_there_and_has_no_capability() -> None:
    uid, capabilities = run(lambda: (os.getuid(), _capabilities()), into=tuple[int, int])
    assert uid == (65534 if os.geteuid() == 0 else os.geteuid())
    assert capabilities == 0


def _capabilities() -> int:
    import ctypes
    import struct

    head, body = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    # capget(2) is not on the list either: what cannot be asked for is not had.
    if ctypes.CDLL(None).capget(head, body) < 0:
        return 0
    words = struct.unpack("=6I", body.raw)
    return int(words[0] | words[1])


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        (os.abort, "killed by SIG"),
        (lambda: bytearray(16 << 30), "ran out of memory"),
        (lambda: os._exit(7), "ended with code 7"),
        (lambda: "no number", "no proper answer"),
    ],
)
def test_a_child_that_dies_or_answers_nonsense_is_named(ends: Callable[[], object], says: str) -> None:
    with pytest.raises(Ended, match=says):
        run(ends, into=int)


def test_a_child_that_takes_too_long_is_stopped() -> None:
    def spin() -> None:
        while True:
            pass

    with pytest.raises(Ended, match="after 1 seconds of computing"):
        run(spin, into=None, fence=Fence(cpu=1))
    began = time.monotonic()
    with pytest.raises(Ended, match="stopped after 1 seconds"):
        run(lambda: time.sleep(60), into=None, fence=Fence(seconds=1))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.05])
def test_a_child_killed_at_any_moment_is_named(after: float) -> None:
    import threading

    def kill() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            if children:
                time.sleep(after)
                os.kill(int(children[0]), signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(Ended, match="killed by SIGKILL"):
            run(lambda: time.sleep(20), into=None)
    finally:
        killer.join()


def test_files_are_opened_outside_and_only_where_the_parent_agrees(tmp_path: Path) -> None:
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/given").write_bytes(b"content")
    (tmp_path / "tree/etc/out").symlink_to("/etc/passwd")
    (tmp_path / "other").write_bytes(b"other")
    outside = opening(lambda path: path.startswith(f"{tmp_path}/tree/"))

    def by_path() -> bytes:
        with open_regular(tmp_path / "tree/etc/given") as file:
            return file.read()

    def below() -> tuple[tuple[str, ...] | None, bytes | None, bytes | None, bool]:
        root = Root(tmp_path / "tree")
        return root.list("/etc"), root.read("/etc/given"), root.read("/etc/out"), root.is_dir("/etc")

    assert run(by_path, into=bytes, outside=outside) == b"content"
    seen = run(below, into=tuple[tuple[str, ...], bytes | None, bytes | None, bool], outside=outside)
    assert seen == (("given", "out"), b"content", None, True)
    for path in (str(tmp_path / "other"), "/etc/passwd"):
        with pytest.raises(Denied, match="does not belong"):
            run(lambda path=path: ask("open", path), into=int, outside=outside)  # type: ignore[misc]
    with pytest.raises(Missing, match="no such file"):
        run(lambda: ask("open", str(tmp_path / "nothing")), into=int, outside=outside)
    with pytest.raises(Missing, match="Nobody does that"):
        run(lambda: ask("unlink", "/etc/passwd"), into=int, outside=outside)


def test_what_the_work_imports_is_there(tmp_path: Path) -> None:
    package = tmp_path / "elftools_like.py"
    package.write_text("VALUE = 5")
    script = (
        "import sys\n"
        "from ejectable.confine import run\n"
        "def work():\n    import colorsys, wave\n    return colorsys.rgb_to_hsv(0, 0, 0)[2]\n"
        "def foreign():\n    try:\n        import elftools_like\n    except ImportError:\n        return 'no'\n"
        "assert 'colorsys' not in sys.modules\n"
        "print(run(work, into=float), run(foreign, into=str))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": f"{SOURCES}:{tmp_path}"},
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["0.0", "no"], "")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to become nobody")
def test_nobody_can_confine_a_child_too(tmp_path: Path) -> None:
    # The interpreter and the package may lie where nobody may go: this process becomes nobody when it has them.
    script = (
        "import os\nfrom ejectable.confine import run\nrun(int, into=int)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "def work():\n    try:\n        os.open('/etc/passwd', 0)\n"
        "    except OSError as error:\n        return error.errno\n"
        "print(run(work, into=int))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCES)}
    )
    assert done.stdout.split() == ["1"]
