# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof itself: a legacy disk kills the faulty kernel, spares the stock one; and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ejectable.report.document import schema

pytestmark = [pytest.mark.guest, pytest.mark.kernels]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ejectable", "lab", *(str(one) for one in arguments), "--accel", "tcg"]


def lab(folder: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*command(*arguments), "--format", "json", "--evidence", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json.loads(schema("lab"))).validate(document)
    return done.returncode, document


def qemus_of(pid: int) -> list[int]:
    """The QEMU processes that this process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"PPid:\t{pid}\n" in text and "Name:\tejectable-lab\n" in text:
            found.append(int(status.parent.name))
    return found


def test_a_legacy_disk_kills_the_faulty_kernel(stock: Path, faulty: Path, tmp_path: Path) -> None:
    code, document = lab(tmp_path, stock, "--modules", faulty)
    (run,) = document["runs"]
    assert (code, document["status"]) == (2, "affected")
    assert (run["result"], run["advisory"], run["driven"]) == ("oops", "CVE-2024-42134", "legacy")
    assert document["claims"][0]["verdict"] == "confirmed"
    console = Path(run["console"]).read_text(errors="replace")
    assert "vp_del_vqs" in console
    assert "device_del" in Path(run["qmp"]).read_text()


def test_it_spares_the_stock_kernel(stock: Path, tmp_path: Path) -> None:
    code, document = lab(tmp_path, stock)
    (run,) = document["runs"]
    assert (code, run["result"], run["advisory"]) == (0, "survived", None)
    assert (run["driven"], run["cycles"], run["release"]) == ("legacy", 1, "6.1.0-50-cloud-amd64")
    assert document["claims"][0]["verdict"] == "refuted"
    said = Path(run["qmp"]).read_text()
    assert "DEVICE_DELETED" in said
    assert "device_add" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kill_leaves_no_qemu_and_no_file(stock: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command(stock), env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    guests: list[int] = []
    while not guests and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        guests = qemus_of(process.pid)
    assert guests, process.communicate()[1]
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == expected[number]
    while any(Path(f"/proc/{guest}/status").exists() for guest in guests) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [guest for guest in guests if Path(f"/proc/{guest}/status").exists()]
    assert not list(tmp_path.iterdir())


def test_a_qemu_that_is_killed_is_told_and_not_taken_for_a_crash(stock: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command(stock), "--format", "json", "--evidence", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    guests: list[int] = []
    deadline = time.monotonic() + 60
    while not guests and time.monotonic() < deadline:
        time.sleep(0.05)
        guests = qemus_of(process.pid)
    os.kill(guests[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    (run,) = json.loads(output)["runs"]
    assert process.returncode == 3
    assert run["result"] == "no-boot"
    assert "QEMU was killed by signal 9" in run["detail"]


def test_a_missing_qemu_is_named_with_the_way_to_get_it(stock: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(stock), env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 69
    assert "qemu-system-x86_64 was not found" in done.stderr
    assert "apt-get install qemu-system-x86" in done.stderr
