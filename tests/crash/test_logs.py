# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of every size and from every place give the same events; what is no log is refused in words."""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.crash import read_events
from ejectable.crash.fingerprint import fingerprint
from ejectable.crash.inputs import read, read_each, sources
from ejectable.crash.logs import Log, read_bytes, read_file, read_stream
from ejectable.crash.scan import BLOCK
from ejectable.errors import BadInput, Missing
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

DEFECT = load(next(path for path in FIXTURES if path.stem == "defect-disk-acpi-eject-printk")).log


def _healthy(size: int) -> bytes:
    rng = random.Random(7)
    lines = [
        f"[{number / 100:12.6f}] usb {rng.randrange(9)}-1: new high-speed USB device number {number} using xhci_hcd\n"
        for number in range(size // 80 + 1)
    ]
    return "".join(lines).encode()


def _file(path: Path, threads: int = 2) -> Log:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_file(descriptor, "log", threads=threads)
    finally:
        os.close(descriptor)


def test_a_crash_in_a_large_file_is_found_wherever_it_stands(tmp_path: Path) -> None:
    quiet = _healthy(3 * BLOCK)
    for before in (0, BLOCK - 1500, BLOCK - 700, BLOCK, 2 * BLOCK + 12345, 3 * BLOCK):
        cut = quiet.rfind(b"\n", 0, before) + 1
        log = quiet[:cut] + DEFECT + quiet
        path = tmp_path / "large.log"
        path.write_bytes(log)
        found = _file(path)
        line = log[: log.index(b"BUG: kernel NULL")].count(b"\n") + 1
        assert [event.line for event in found.events][:1] == [line]
        streamed = read_stream(io.BytesIO(log), "log")
        assert [(e.line, e.title, e.fingerprint) for e in streamed.events] == [
            (e.line, e.title, e.fingerprint) for e in found.events
        ]
        assert found.events[0].kernel == "6.8.0-31-generic"


def test_what_was_said_long_before_is_remembered(tmp_path: Path) -> None:
    head, _, report = DEFECT.partition(b"BUG: kernel NULL")
    start = head.rfind(b"\n") + 1
    path = tmp_path / "log"
    path.write_bytes(head[:start] + _healthy(4 * BLOCK) + head[start:] + b"BUG: kernel NULL" + report)
    device = _file(path).events[0].device
    assert device == "disk vdb (virtio1) at 0000:00:05.0, driven as a legacy device"


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.compress],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_a_compressed_log_is_read_like_a_plain_one(pack: "object", tmp_path: Path) -> None:
    path = tmp_path / "log.packed"
    path.write_bytes(pack(DEFECT))  # type: ignore[operator]
    (source,) = sources([str(path)])
    assert [e.fingerprint for e in read(source).events] == [e.fingerprint for e in read_bytes(DEFECT, "log").events]


def test_a_compressed_log_that_is_cut_off_still_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    packed = gzip.compress(_healthy(BLOCK) + DEFECT + _healthy(BLOCK))
    path.write_bytes(packed[: len(packed) * 3 // 4])
    (source,) = sources([str(path)])
    log = read(source)
    assert log.damaged is not None
    assert log.events[0].function == "vp_del_vqs"


def test_pstore_parts_are_joined_from_the_highest_number_down(tmp_path: Path) -> None:
    lines = DEFECT.splitlines(keepends=True)
    pieces = [lines[:20], lines[20:40], lines[40:]]
    for number, piece in zip((3, 2, 1), pieces, strict=True):
        name = tmp_path / f"dmesg-efi_pstore-17108136{number:02d}001"
        name.write_bytes(f"Oops#1 Part{number}\n".encode() + b"".join(piece))
    other = tmp_path / "dmesg-efi_pstore-17209999101001"
    other.write_bytes(b"Panic#1 Part1\n<0>[   12.345678] Kernel panic - not syncing: sysrq triggered crash\n")
    found = sources([str(tmp_path)])
    assert len(found) == 2, "two crashes in one directory"
    events = [event for source in found for event in read(source).events]
    defect = next(event for event in events if event.kind == "null-call")
    assert defect.function == "vp_del_vqs"
    assert defect.source.endswith("03001"), "the part that it begins in"
    assert any(event.kind == "panic" and "sysrq" in event.title for event in events)


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02\x7fELF" * 500, b"Once upon a time there was a kernel.\n" * 50])
def test_what_is_no_log_at_all_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(BadInput, match="expected a kernel log"):
        list(read_events(io.BytesIO(data)))


def test_a_log_that_is_not_there_or_a_fifo_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no such file"):
        read(sources([str(tmp_path / "nothing")])[0])
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInput, match="FIFO"):
        read(sources([str(tmp_path / "fifo")])[0])


def test_a_file_that_grows_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(DEFECT + _healthy(3 * BLOCK))
    descriptor = os.open(path, os.O_RDONLY)
    with path.open("ab") as file:

        def grow(_: int) -> None:
            file.write(DEFECT)
            file.flush()

        found = read_file(descriptor, "log", progress=grow)
    os.close(descriptor)
    assert len(found.events) == len(read_bytes(DEFECT, "log").events)


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    code = """
import io, re
from ejectable.crash.logs import read_stream
class Endless(io.RawIOBase):
    left = 300
    def readable(self): return True
    def readinto(self, buffer):
        if not self.left: return 0
        self.left -= 1
        buffer[:] = b"[    1.000000] BUG:".ljust(len(buffer), b"x")
        return len(buffer)
log = read_stream(io.BufferedReader(Endless(), 1 << 20), "log")
# Not getrusage(): through vfork() and exec() it starts at what the parent had.
print(len(log.events), re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    events, kilobytes = map(int, done.stdout.split())
    assert events <= 1
    assert kilobytes < 150 * 1024


def test_the_same_crash_over_and_over_is_counted_not_listed() -> None:
    log = read_bytes(DEFECT * 300, "log")
    assert len(log.events) <= 120
    assert len(log.events) + log.left_out == 300 * len(read_bytes(DEFECT, "log").events)


def test_the_fingerprint_is_the_bug_not_the_boot() -> None:
    names = ["vp_del_vqs", "virtblk_remove", "virtio_dev_remove"]
    one = fingerprint("null-call", "NULL in vp_del_vqs", "vp_del_vqs", names)
    assert one == fingerprint("null-call", "NULL in vp_del_vqs", "vp_del_vqs", ["vp_del_vqs.llvm.77", *names[1:]])
    assert one != fingerprint("null-call", "NULL in vp_del_vqs", "vp_del_vqs", ["vp_del_vqs", "remove_vq_common"])
    moved = DEFECT.replace(b"+0x", b"+0x1").replace(b"[   6", b"[  96").replace(b"CPU: 0", b"CPU: 7")
    prints = [[event.fingerprint for event in read_bytes(data, "log").events] for data in (DEFECT, moved)]
    assert prints[0] == prints[1]


LINES = [line for path in FIXTURES[::5] for line in load(path).log.splitlines()[:60]]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.sampled_from(LINES), st.binary(max_size=60), st.sampled_from(LINES).map(lambda line: line[:30])),
        max_size=60,
    )
)
def test_no_mixture_of_lines_breaks_the_reader(lines: list[bytes]) -> None:
    data = b"[    0.000000] Linux version 6.8.0\n" + b"\n".join(lines)
    for event in read_events(io.BytesIO(data)):
        assert 1 <= event.line <= data.count(b"\n") + 1
        assert len(event.title) <= 200


def test_the_parts_of_one_record_are_read_up_to_a_bound_in_all(tmp_path: Path) -> None:
    for number in range(1, 41):
        path = tmp_path / f"dmesg-ramoops-{number}"
        path.write_bytes(b"Oops#1 Part%d\n" % number + (DEFECT if number == 40 else b"[    1.000000] quiet\n"))
        os.truncate(path, 4 << 20)  # sparse: it takes no room
    (source,) = [one for one in sources([str(tmp_path)]) if len(one.paths) > 1][:1]
    log = read(source)
    assert log.events[0].function == "vp_del_vqs"
    assert log.damaged is not None
    assert "were not read" in log.damaged


def test_the_members_of_an_archive_are_logs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "sos").mkdir()
    (tmp_path / "sos" / "dmesg").write_bytes(DEFECT)
    (tmp_path / "sos" / "passwd").write_bytes(b"root:x:0:0:root:/root:/bin/sh\n")
    for kind in ("tar", "xztar", "zip"):
        packed = shutil.make_archive(str(tmp_path / "report"), kind, tmp_path, "sos")
        found = list(read_each(*sources([packed])))
        logs = [(name, log) for name, log in found if isinstance(log, Log)]
        assert [name for name, _ in logs] == [f"{packed}(sos/dmesg)"]
        assert logs[0][1].events[0].function == "vp_del_vqs"
        assert sum(isinstance(log, BadInput) for _, log in found) == 1
