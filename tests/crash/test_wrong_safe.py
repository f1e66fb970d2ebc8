# SPDX-License-Identifier: GPL-2.0-or-later
"""A safe word is only said of a log that was read: not of another file, a damaged report, or beyond a bound."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import judge, read_all
from ejectable.crash.inputs import sources
from ejectable.crash.logs import read_bytes
from ejectable.errors import BadInput
from ejectable.model import SAFE, Doubt, DoubtKind, Judgement, Status, worst
from tests.advisories.toy import Toy
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

DEFECT = load(next(path for path in FIXTURES if path.stem == "defect-disk-acpi-eject-printk")).log
FRAME = re.compile(rb"(?m)^(\[[^]]*\]  )vp_del_vqs\+.*\n")


def _said(log: bytes) -> list[Judgement]:
    return [judge(event, choose(())) for event in read_bytes(log, "log").events]


def _word(log: bytes) -> Status:
    return worst(said.status for said in _said(log))


@pytest.mark.parametrize(
    ("data", "found", "way_out"),
    [
        (b"root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\n", "a table of users", "dmesg"),
        (b"# Title\n\nWhat the Oops is, and the word BUG: of it.\n", "a document", "dmesg"),
        (b"2024-06-01 10:11:12 status installed libc6:amd64 2.36-9\n" * 3, "the log of dpkg", "dmesg"),
        (b"Jun  1 10:11:12 host sshd[1]: session opened for user root\n" * 9, "a log of services", "journalctl"),
        (b"KDUMP   \x06\x00\x00\x00" + bytes(400), "a memory dump", "makedumpfile --dump-dmesg"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00\x3e\x00" + bytes(99), "a memory dump", "vmcore-dmesg"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "a picture", "Type what it shows"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(200)), "a picture", "Type what it shows"),
        (b"LPKSHHRH" + bytes(400), "a journal of systemd", "journalctl -k --file"),
        (b"Once upon a time there was a kernel.\n" * 50, "text", "dmesg"),
        (b'{"user": "root", "shell": "/bin/bash"}\n', "JSON", "dmesg"),
    ],
)
def test_what_is_no_kernel_log_is_refused_with_what_it_seems_to_be(data: bytes, found: str, way_out: str) -> None:
    with pytest.raises(BadInput, match=found) as refused:
        read_bytes(data, "file")
    assert way_out in (refused.value.hint or "")


def test_the_defect_after_any_number_of_other_events_is_still_found() -> None:
    warning = "[   10.000000] WARNING: CPU: 0 PID: 1 at drivers/f.c:{0} f{0}_x+0x1/0x2\n[   10.000001] Call Trace:\n"
    warning += "[   10.000002]  f{0}_x+0x1/0x2\n[   10.000003] ---[ end trace 0000000000000000 ]---\n"
    log = "".join(warning.format(number) for number in range(2001)).encode() + DEFECT
    known = choose(())
    read = read_bytes(log, "log", matters=lambda event: judge(event, known).status not in SAFE)
    assert len(read.events) < 2100
    assert worst(judge(event, known).status for event in read.events) is Status.AFFECTED


def _with(above: bytes) -> bytes:
    """The defect with a line above its first frame."""
    return FRAME.sub(lambda match: match[1] + above + b"\n" + match[0], DEFECT)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (_with(b"__x86_indirect_thunk_rax+0x11/0x20"), {Status.AFFECTED}),
        (_with(b"do_idle+0x11/0x20"), {Status.UNKNOWN}),
        (_with(b"ext4_sync+0x11/0x20"), {Status.UNKNOWN}),
        (FRAME.sub(rb"\1? vp_del_vqs+0x21d/0x2d0\n", DEFECT), {Status.UNKNOWN}),
        (DEFECT.replace(b"virtblk_remove", b"acme_gone"), {Status.AFFECTED}),
        (DEFECT.replace(b"vp_del_vqs+0x", b"vp_del_vqs+Ox"), {Status.AFFECTED}),
        (DEFECT.replace(b"vp_del_vqs+", b"vp_de1_vqs+"), {Status.UNKNOWN}),
        (DEFECT.replace(b"vp_del_vqs+", b"vp_delvqs+"), {Status.UNKNOWN}),
        (DEFECT.replace(b"vp_del_vqs+0x", b"vp_del_vq"), {Status.UNKNOWN}),
        (DEFECT.replace(b"vp_del_vqs+", b"vp_del\xef\xbf\xbdvqs+"), {Status.UNKNOWN, Status.AFFECTED}),
    ],
)
def test_what_may_hide_the_caller_keeps_a_safe_word_from_being_said(log: bytes, words: set[Status]) -> None:
    assert log != DEFECT
    assert _word(log) in words


def test_the_error_path_of_a_probe_is_the_defect_too() -> None:
    log = load(next(path for path in FIXTURES if path.stem == "defect-probe-path")).log
    (said,) = _said(log)
    assert said.advisory == "CVE-2024-42134"
    assert "setting up a device had failed" in said.why


def test_a_panic_whose_cause_is_not_in_the_log_is_unknown() -> None:
    (said,) = _said(b"[   61.734211] Kernel panic - not syncing: Fatal exception\n")
    assert said.status is Status.UNKNOWN


def test_a_log_that_speaks_of_a_crash_and_has_no_report_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"[   61.7342] note: kworker/0:2[61] exited with preempt_count 1\n" * 2)
    reading = read_all(sources([str(path)]), choose(()))
    assert not reading.events
    assert reading.status is Status.UNKNOWN
    assert "exited with preempt_count" in reading.suspicious[0].detail


def test_a_part_that_cannot_be_imported_is_a_failure() -> None:
    class Broken(Toy):
        @property
        def signature(self) -> Any:
            return importlib.import_module("no_such_module_at_all")

    (event, *_) = read_bytes(DEFECT, "log").events
    with pytest.raises(ImportError, match="no_such_module_at_all"):
        judge(event, {"X": Broken()})
    assert judge(event, {"Y": Toy()}).status is Status.NOT_AFFECTED


def test_a_safe_judgement_beside_a_doubt_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="beside a doubt"):
        Judgement(Status.NOT_AFFECTED, doubts=(Doubt(DoubtKind.CUT_OFF, "log:1", "It ends here."),))


def test_two_machines_mixed_without_a_name_are_not_taken_for_the_defect() -> None:
    mixed = load(next(path for path in FIXTURES if path.stem == "people-05a-two-hosts-interleaved")).log
    plain = re.sub(rb"(?m)^Jun .* kernel: ", b"", mixed)
    assert _word(mixed) is Status.NOT_AFFECTED
    assert _word(plain) is Status.UNKNOWN


def test_the_stack_of_a_process_is_a_task_that_waits() -> None:
    frames = b"blk_mq_freeze_queue_wait+0x8f/0xb0", b"del_gendisk+0x19c/0x220", b"virtblk_remove+0x29/0x80 [virtio_blk]"
    (event,) = read_bytes(b"".join(b"[<0>] %s\n" % frame for frame in frames), "stack").events
    assert (event.kind, event.function) == ("hung-task", "del_gendisk")
