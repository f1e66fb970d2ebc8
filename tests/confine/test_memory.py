# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of the running kernel is read in a confined process; what goes wrong in there is a doubt with a name."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.advisories import choose
from ejectable.assess import memory
from ejectable.errors import Ended, Missing
from ejectable.host import Root, Running
from ejectable.intake import DEFAULT_LIMITS
from ejectable.kernel.memory import CoreFile, MemoryKernel

IDS = ("CVE-2024-42134",)
RUNNING = Running(
    release="6.1.0",
    banner=None,
    build_id=None,
    arch="x86_64",
    modules={},
    command_line="",
    lockdown=None,
    force_legacy=False,
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    for path, data in (("kcore", b"\x7fELF"), ("kallsyms", b"ffffffff81000000 T _text\n"), ("other", b"secret")):
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / path).write_bytes(data)
    return Root(tmp_path)


def instead(monkeypatch: pytest.MonkeyPatch, how: Callable[[], object]) -> None:
    """From here on, who reads the headers of a core file does this, and in this process none may."""
    parent = os.getpid()

    def evil(core: CoreFile) -> None:
        assert os.getpid() != parent, "memory is read outside"
        core.arch, core._loads = "x86_64", []
        how()

    monkeypatch.setattr(CoreFile, "_read_headers", evil)


def look(root: Root, work: Callable[[MemoryKernel], str]) -> str:
    return memory.look(root, RUNNING, DEFAULT_LIMITS, work, into=str, ids=IDS)


MISBEHAVIOURS: dict[str, Callable[[], object]] = {
    "makes a socket": socket.socket,
    "runs a program": lambda: os.execv("/bin/true", ["true"]),
    "dies": os.abort,
    "is killed": lambda: os._exit(0),
    "takes all memory": lambda: bytearray(1 << 40),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_a_reader_of_memory_that_misbehaves_ends_and_says_nothing(
    what: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, MISBEHAVIOURS[what])
    with pytest.raises(Ended):
        look(root, lambda _: "all is well")
    notes: list[str] = []
    verdicts = None  # of a tree nothing is kept
    found = memory.judged(root, RUNNING, choose(()), DEFAULT_LIMITS, verdicts, notes)  # type: ignore[arg-type]
    assert found is None


def test_it_gets_the_memory_the_symbols_and_nothing_else(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(kernel: MemoryKernel) -> str:
        found = [type(kernel).__name__]
        for path in ("/proc/other", "/etc/passwd"):
            try:
                with root.open(path):
                    found.append("had")
            except (Missing, OSError) as error:
                found.append(type(error).__name__)
        with pytest.raises(PermissionError):
            os.open("/etc/passwd", os.O_RDONLY)
        return " ".join(found)

    instead(monkeypatch, lambda: None)
    assert look(root, opens) == "MemoryKernel Denied Missing"
