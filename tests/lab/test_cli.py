# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable lab` as it is typed: what it prints where, with which exit code. Only QEMU is a fake."""

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest

from ejectable.intake import Compression
from ejectable.report.document import schema
from tests.kernel import synthetic

FAKE = Path(__file__).with_name("fake_qemu.py")


@pytest.fixture
def folder(tmp_path: Path, qemu: None) -> Path:
    """A place with a kernel in it, and a `bin` that goes before the real programs."""
    content = synthetic.vmlinux(config=b"CONFIG_VIRTIO_PCI_LEGACY=y\n")
    (tmp_path / "vmlinuz").write_bytes(synthetic.bzimage(synthetic.pack(content, Compression.GZIP)))
    (tmp_path / "bin").mkdir()
    return tmp_path


def environment(folder: Path, behaviour: str = "good") -> dict[str, str]:
    program = folder / "bin" / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {behaviour} "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "TMPDIR": str(folder)}


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "ejectable", "lab", str(folder / "vmlinuz"), "--accel", "tcg", *options]


def lab(folder: Path, *options: str, behaviour: str = "good") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(folder, *options),
        env=environment(folder, behaviour),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_answer_is_a_table_what_it_means_and_where_the_evidence_is(folder: Path) -> None:
    done = lab(folder, "--evidence", str(folder / "kept"))
    assert done.returncode == 0
    heading, row = done.stdout.splitlines()[:2]
    assert heading.split()[:6] == ["machine", "device", "mode", "trigger", "panic_on_oops", "result"]
    assert row.split()[:6] == ["pc", "disk", "legacy", "acpi-eject", "0", "survived"]
    assert "CVE-2024-42134 is refuted for what was tried" in done.stdout.replace("\n", " ")
    assert "Run under TCG: as asked for." in done.stdout
    assert {path.name for path in (folder / "kept").rglob("*.log")} == {"console.log", "qmp.log"}
    assert "device_del" in next((folder / "kept").rglob("qmp.log")).read_text()


def test_a_crash_is_named_with_its_advisory_and_exit_code_2(folder: Path) -> None:
    done = lab(folder, "--format", "json", behaviour="oopses")
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json.loads(schema("lab"))).validate(document)
    assert (done.returncode, document["status"]) == (2, "affected")
    assert document["runs"][0]["advisory"] == "CVE-2024-42134"
    assert document["claims"][0]["verdict"] == "confirmed"
    assert Path(document["runs"][0]["console"]).is_relative_to(folder)


def test_what_is_skipped_is_told_before_anything_starts_and_again_at_the_end(folder: Path) -> None:
    done = lab(folder, "--trigger", "acpi-eject,pcie-hotplug,module-unload", "--format", "json")
    document = json.loads(done.stdout)
    assert [entry["reason"] for entry in document["skipped"]] == [
        "the machine pc has no PCIe: q35 has",
        "virtio_blk is built into this kernel: it cannot be unloaded",
    ]
    assert "skipped 1: the machine pc has no PCIe" in done.stderr
    nothing = lab(folder, "--trigger", "pcie-hotplug")
    assert nothing.returncode == 3
    assert "Nothing was tried" in nothing.stdout.replace("\n", " ") or "Skipped 1 combination" in nothing.stdout


def on_a_terminal(folder: Path, *options: str, behaviour: str = "good") -> tuple[str, str]:
    """Standard output, and what a terminal at standard error is shown."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                shown.append(piece)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    environ = {**environment(folder, behaviour), "TERM": "xterm-256color", "COLUMNS": "120"}
    environ.pop("NO_COLOR", None)
    done = subprocess.run(
        command(folder, *options), env=environ, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False
    )
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return done.stdout.decode(), b"".join(shown).decode(errors="replace")


def test_a_terminal_is_shown_a_live_table_and_standard_output_is_not(folder: Path) -> None:
    options = ("--mode", "legacy,forced-legacy", "--jobs", "2", "--timeout", "5")
    answer, shown = on_a_terminal(folder, *options, behaviour="silent")
    assert "of 2 runs done" in shown
    assert "booting" in shown
    assert "\x1b[" in shown
    assert "\x1b[" not in answer


def test_quiet_and_no_color_are_honoured(folder: Path) -> None:
    answer, shown = on_a_terminal(folder, "--quiet")
    assert shown == ""
    assert answer.startswith("1 run: 1 survived.")
    _, plain = on_a_terminal(folder, "--no-color")
    assert "runs done" in plain
    assert "\x1b[1;31m" not in plain
    assert "\x1b[32m" not in plain


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--device", "floppy"), 64, "--device knows no 'floppy'"),
        (("--accel", "hvf"), 64, "--accel knows no 'hvf'"),
        (("--repeat", "0"), 64, "--repeat"),
        (("--insmod", "vmlinuz"), 65, "expected a module"),
        (("--modules", "no-such-folder"), 69, "no such directory"),
        (("--busybox", "/bin/sh"), 65, "not a static busybox"),
        (("--evidence", "/proc/none"), 69, "no folder can be made there"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_the_right_exit_code(
    folder: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    done = lab(folder, *options)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert done.stdout == ""


def test_a_full_folder_costs_the_evidence_not_the_result(folder: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed (apt-get install util-linux): no file system to fill")
    full = folder / "full"
    full.mkdir()
    script = f'mount -t tmpfs -o size=4k none {full} && head -c 4096 /dev/zero >{full}/all; exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a mount namespace: no file system to fill")
    done = subprocess.run(
        [*inside, *command(folder, "--evidence", str(full / "kept"))],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout.replace("\n", " ")
    assert "Evidence" not in done.stdout
