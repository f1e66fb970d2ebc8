# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that are large or packed in each other: read to their end within time and memory, or refused by name."""

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

FIXTURE = Path(__file__).parent / "fixtures"
NOISE = b"[  100.000000] usb 1-1: new high-speed USB device number 7 using xhci_hcd\n"
SIZE = 50 << 20


def crash(path: Path) -> tuple[int, str, float, int]:
    """The exit code, what was said, how long it computed and how much memory it took, in a process of its own."""
    program = (
        "import resource, sys; from ejectable.cli.app import run; code = run(['crash', sys.argv[1], '--jobs', '1']);"
        "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)];"
        # Not ru_maxrss of itself: exec(2) carries the peak of the process that forked along.
        "own = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print('USED', sum(one.ru_utime for one in used), own + used[1].ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=500
    )
    *_, used = done.stdout.rsplit("USED ", 1)
    seconds, memory = used.split()
    return done.returncode, done.stdout, float(seconds), int(memory) << 10


def nested(data: bytes, depth: int) -> bytes:
    """An archive in an archive, so many times, of three kinds in turn."""
    for level in range(depth):
        packed = io.BytesIO()
        if level % 3 == 0:
            packed.write(gzip.compress(data, 1))
        elif level % 3 == 1:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                about = tarfile.TarInfo(f"inner{level}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
        else:
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"inner{level}", data)
        data = packed.getvalue()
    return data


@pytest.mark.parametrize("shape", ["lines", "one line", "zeros", "garbage", "packed"])
def test_a_log_of_50_mb_is_read_or_refused_in_time_and_memory(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "log"
    lines = NOISE * (SIZE // len(NOISE))
    match shape:
        case "lines":
            path.write_bytes(lines)
        case "one line":
            path.write_bytes(lines.replace(b"\n", b" "))
        case "zeros":
            path.write_bytes(NOISE + bytes(SIZE))
        case "garbage":
            path.write_bytes(bytes(range(256)) * (SIZE // 256))
        case _:
            path.write_bytes(gzip.compress(lines, 1))
    code, said, seconds, memory = crash(path)
    assert code in (0, 3, 65), said
    assert seconds < 30
    assert memory < 400 << 20


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 40])
def test_archives_in_archives_are_read_so_far_and_no_further_and_never_called_healthy_unread(
    tmp_path: Path, depth: int
) -> None:
    crashed = next(path for path in sorted(FIXTURE.iterdir()) if b"Oops" in path.read_bytes())
    path = tmp_path / "log"
    path.write_bytes(nested(crashed.read_bytes(), depth))
    code, said, seconds, memory = crash(path)
    assert "HEALTHY" not in said
    assert code in (0, 2, 3, 65), said
    assert code != 0 or "NOT THIS DEFECT" in said, said
    assert seconds < 20
    assert memory < 400 << 20


def test_a_bomb_of_bombs_ends_at_the_bound_of_the_sum(tmp_path: Path) -> None:
    """Three hundred members of 64 KiB that unpack to 64 MiB each: 19 GiB."""
    bomb = gzip.compress(bytes(64 << 20), 9)
    with tarfile.open(tmp_path / "log", "w") as tar:
        for number in range(300):
            about = tarfile.TarInfo(f"log{number}.gz")
            about.size = len(bomb)
            tar.addfile(about, io.BytesIO(bomb))
    code, said, seconds, memory = crash(tmp_path / "log")
    assert code in (3, 65), said
    assert "HEALTHY" not in said
    assert seconds < 60
    assert memory < 600 << 20


def test_sparse_parts_of_pstore_are_bounded_in_sum(tmp_path: Path) -> None:
    """Of 300 parts that take no room on the disk, 3 GiB were read, for over a minute."""
    for number in range(300):
        with (tmp_path / f"dmesg-efi_pstore-17108136{number:03d}001").open("wb") as part:
            part.write(b"Oops#1 Part1\n" + NOISE)
            part.truncate(10 << 20)
    code, said, seconds, memory = crash(tmp_path)
    assert code in (0, 3, 65), said
    assert seconds < 60
    assert memory < 600 << 20


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"a":1}', b"[[", b'{"m":"x"}\n'])
def test_json_without_end_takes_no_more_than_other_logs(tmp_path: Path, text: bytes) -> None:
    """30 MB of `{}` took 820 MiB."""
    path = tmp_path / "log"
    path.write_bytes(text * ((30 << 20) // len(text)))
    code, said, seconds, memory = crash(path)
    assert code in (3, 65), said
    assert seconds < 60
    assert memory < 400 << 20
