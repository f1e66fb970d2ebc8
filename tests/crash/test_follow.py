# SPDX-License-Identifier: GPL-2.0-or-later
"""A log that grows gives each event when it is complete, whatever it is read from, and ends with the verdict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

DEFECT = load(next(path for path in FIXTURES if path.stem == "defect-disk-acpi-eject-printk")).log
COMMAND = (sys.executable, "-m", "ejectable", "crash", "--follow", "--format", "jsonl")


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def _next(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    found: dict[str, object] = json.loads(process.stdout.readline())
    return found


def test_a_pipe_gives_an_event_before_it_ends_and_the_exit_code_when_it_does() -> None:
    with _started() as process:
        assert process.stdin is not None
        process.stdin.write(DEFECT)
        event = _next(process)
        assert event["advisory"] == "CVE-2024-42134"
        process.stdin.close()
        assert process.wait(timeout=20) == 2


def test_a_report_that_stops_in_the_middle_is_given_after_two_seconds(tmp_path: Path) -> None:
    end = DEFECT.index(b"virtio_dev_remove")
    with _started() as process:
        assert process.stdin is not None
        process.stdin.write(DEFECT[: DEFECT.index(b"\n", end) + 1])
        event = _next(process)
        assert event["advisory"] == "CVE-2024-42134"
        assert event["truncated"] is True
        process.stdin.close()
        assert process.wait(timeout=20) == 2


def test_a_file_that_grows_is_rotated_and_left_with_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"[    1.000000] Linux version 6.8.0 (x)\n")
    with _started(str(path)) as process:
        time.sleep(1)
        path.rename(tmp_path / "kern.log.1")
        path.write_bytes(DEFECT)
        assert _next(process)["advisory"] == "CVE-2024-42134"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 2


def test_a_healthy_log_ends_with_0_and_no_log_with_65() -> None:
    for data, code in ((b"[    1.000000] Linux version 6.8.0 (x)\n", 0), (b"root:x:0:0:root:/root:/bin/sh\n" * 3, 65)):
        with _started() as process:
            assert process.communicate(data, timeout=20)[0] == b""
            assert process.returncode == code
