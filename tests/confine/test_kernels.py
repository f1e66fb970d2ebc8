# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable kernel` reads and runs foreign bytes in a confined process, and its death is an `unknown` with a doubt."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from corpus.modules import Module
from ejectable.assess import kernels
from ejectable.assess.kernels import judge_path
from ejectable.confine.process import Process
from ejectable.errors import Missing
from ejectable.intake import DEFAULT_LIMITS
from ejectable.model import DoubtKind, Status

IDS = ("CVE-2024-42134",)
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1


def dies(how: object) -> None:
    if how == "memory":
        raise MemoryError
    os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else os.abort()


@pytest.mark.parametrize("how", ["memory", "abort"])
def test_the_death_of_the_process_is_unknown_and_named(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_judge_job", lambda *_: dies(how))
    (report,) = judge_path(str(tmp_path), IDS, DEFAULT_LIMITS).kernels
    (finding,) = report.findings
    assert finding.status is Status.UNKNOWN
    assert [doubt.kind for doubt in finding.doubts] == [DoubtKind.UNREADABLE]
    assert "process that read it" in finding.reason


def test_several_paths_are_sorted_in_there_and_its_death_leaves_none_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("one.deb", "two.img")]
    for path in paths:
        path.write_bytes(b"!<arch>\n" + bytes(100))
    parent = os.getpid()

    def sort(*_: object) -> list[kernels.Job]:
        assert os.getpid() != parent, "files are looked at outside"
        os.abort()

    monkeypatch.setattr(kernels, "_jobs_of", sort)
    found = list(kernels.judge_paths([str(path) for path in paths], IDS, DEFAULT_LIMITS, jobs=2, done=lambda _: None))
    assert [one.kernels[0].findings[0].status for one in found] == [Status.UNKNOWN] * 2


@pytest.fixture
def module() -> Path:
    try:
        return Module().path()
    except Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.kernels
def test_a_kernel_is_judged_in_there(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ejectable.confine import work

    starts = []

    def counted(*given: Any, **named: Any) -> Process:
        starts.append(1)
        return Process(*given, **named)

    monkeypatch.setattr(work, "Process", counted)
    (report,) = judge_path(str(module), IDS, DEFAULT_LIMITS).kernels
    assert report.findings[0].status is Status.AFFECTED
    assert starts == [1], "what a module needs is imported before, not found out"


@pytest.mark.kernels
@pytest.mark.parametrize("kib", [40_000, 55_000, 62_000, 70_000, 80_000, 100_000])
@pytest.mark.parametrize("packed", ["module", "zstd"])
def test_with_too_little_memory_the_answer_is_unknown_and_names_the_way_out(
    kib: int, packed: str, module: Path, tmp_path: Path
) -> None:
    """Under 50 to 100 MB the libraries cannot be loaded, or not unpack what they are given: `ulimit -v`."""
    path = module
    if packed == "zstd":
        path = tmp_path / "vmlinuz"
        path.write_bytes(zstandard.ZstdCompressor().compress(b"\x7fELF" + bytes(96 << 20)))
    command = ["prlimit", f"--as={kib << 10}", sys.executable, "-m", "ejectable", "kernel", "--no-cache", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if packed == "module" and kib > 80_000:
        assert done.returncode == 2, done.stderr
        return
    assert done.returncode in (3, 69), done.stdout + done.stderr  # 69 where it does not even come to that
    said = " ".join((done.stdout + done.stderr).split())
    assert "memory" in said
    assert "another machine" in said


@pytest.mark.kernels
def test_without_executable_memory_the_answer_is_unknown_and_names_the_way_out(module: Path) -> None:
    """systemd's MemoryDenyWriteExecute=yes is this call (Linux 6.3), or a filter that does the same."""

    def deny() -> None:
        ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)

    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:  # PR_GET_MDWE
        pytest.skip("this kernel cannot refuse executable memory")
    command = [sys.executable, "-m", "ejectable", "kernel", str(module)]
    done = subprocess.run(command, preexec_fn=deny, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "writable and executable" in " ".join(done.stdout.split())
    assert "MemoryDenyWriteExecute" in done.stdout
