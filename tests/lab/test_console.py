# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest says is told from what its kernel says; a flood is borne, and a fall is noticed at once."""

import asyncio
import time

from ejectable.lab.attribution import Mark
from ejectable.lab.console import TRANSCRIPT_LIMIT, Console
from ejectable.lab.guest import parse_view
from ejectable.lab.watch import CrashWatch

TOKEN = "ejectable-0123abcd"
OOPS = """\
[    7.123456] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    7.123456] #PF: supervisor instruction fetch in kernel mode
[    7.123456] #PF: error_code(0x0010) - not-present page
[    7.123456] Oops: 0010 [#1] PREEMPT SMP NOPTI
[    7.123456] RIP: 0010:0x0
[    7.123456] Code: Unable to access opcode bytes at 0xffffffffffffffd6.
[    7.123456] Call Trace:
[    7.123456]  <TASK>
[    7.123456]  vp_del_vqs+0x41/0x1f0 [virtio_pci]
[    7.123456]  virtblk_remove+0x55/0x90 [virtio_blk]
[    7.123456]  </TASK>
[    7.123456] ---[ end trace 0000000000000000 ]---
"""


def console() -> Console:
    return Console(TOKEN, started=time.monotonic(), watch=CrashWatch("test"))


def test_our_lines_are_heard_however_they_are_cut() -> None:
    said = console()
    for byte in f"[    1.0] {TOKEN}: hello 6.1.0\r\n[    1.1] {TOKEN}: up\r\n".encode():
        said.feed(bytes([byte]))
    assert said.hello.is_set()
    assert said.up.is_set()
    assert said.release == "6.1.0"
    assert said.boot_s is not None


def test_the_command_line_with_the_token_in_it_is_not_ours() -> None:
    said = console()
    said.feed(f"[    0.0] Command line: console=ttyS0 EJECTABLE={TOKEN} EJECTABLE_PANIC=0\n".encode())
    assert not said.problems
    assert not said.hello.is_set()


def test_answers_find_who_asked() -> None:
    async def ask() -> str:
        said = console()
        first, second = said.answer(1), said.answer(2)
        said.feed(f"{TOKEN}: = 2 ok\n{TOKEN}: = nonsense\n{TOKEN}: = 7 late\n".encode())
        assert not first.done()
        return await second

    assert asyncio.run(ask()) == "ok"


def test_an_oops_is_noticed_with_its_first_line_and_read_with_its_last() -> None:
    said = console()
    first, rest = OOPS.split("\n", 1)
    said.feed(f"{first}\n".encode())
    assert said.crash_begun.is_set()
    assert not said.crash_ended.is_set()
    said.feed(rest.encode())
    assert said.crash_ended.is_set()
    (event,) = said.finish()
    assert (event.kind, event.function) == ("null-call", "vp_del_vqs")


def test_a_flood_is_kept_within_bounds_and_its_end_is_shown() -> None:
    said = console()
    block = b"noise noise noise noise noise\n" * 4096
    for _ in range(1 + 2 * TRANSCRIPT_LIMIT // len(block)):
        said.feed(block)
    said.feed(OOPS.encode())
    assert said.crash_ended.is_set()
    assert len(said.transcript) < TRANSCRIPT_LIMIT + 8192
    assert b"bytes left out" in said.transcript
    assert b"end trace" in said.transcript


def test_a_line_without_end_is_no_way_to_fill_the_memory() -> None:
    said = console()
    for _ in range(1000):
        said.feed(b"x" * 10_000)
    assert max(len(line) for line in said.tail) <= 4096


def test_what_the_guest_sees_is_read_and_what_is_no_view_left_out() -> None:
    (view,) = parse_view("0000:00:06.0,0x1001,1,virtio0,0,virtio_blk nonsense a,b")
    assert (view.address, view.ready, view.version_1, view.driver) == ("0000:00:06.0", True, False, "virtio_blk")
    (early,) = parse_view("0000:00:06.0,0x1001,1,virtio0,,virtio_blk")
    assert (early.driver, early.version_1, early.ready) == ("virtio_blk", None, False), "not at work yet"
    (bare,) = parse_view("0000:00:06.0,0x1001,,,,")
    assert (bare.bound, bare.name, bare.version_1, bare.driver, bare.ready) == (False, None, None, None, False)


def test_words_of_a_driver_and_reports_that_end_nothing_are_no_crash() -> None:
    said = console()
    said.feed(b"[ 1.0] mydrv 0000:00:05.0: BUG: the firmware says so\n[ 1.1] mydrv: Kernel panic - no, only words\n")
    said.feed(b"[ 2.0] BUG: sleeping function called from invalid context at mm/page_alloc.c:5000\n")
    said.feed(b"[ 2.0] Call Trace:\n[ 2.0]  __might_resched+0x1c0/0x220\n[ 2.0]  some_work+0x20/0x40\n")
    said.feed(b"[ 3.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kworker/0:1:11]\n")
    assert not said.crash_begun.is_set()
    assert [event.kind for event in said.finish()] == ["bug", "soft-lockup"]


def test_a_mark_is_kept_with_its_number_phase_and_line() -> None:
    said = console()
    said.feed(f"one\n{TOKEN}: mark 7 trigger\n{TOKEN}: mark by 93\ntwo\n{TOKEN}: mark 8 nonsense\n".encode())
    assert said.marks == [Mark(7, "trigger", 2, pid=93)]
