# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for QEMU with a guest that misbehaves as it is told: `fake_qemu.py BEHAVIOUR <QEMU's own options>`.

It speaks as the real ones were seen to: QMP's greeting and replies on one inherited socket, a console on the other.
"""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

behaviour, options = sys.argv[1], " ".join(sys.argv[2:])


def inherited(name: str) -> socket.socket:
    match = re.search(rf"id={name},fd=(\d+)", options)
    assert match
    return socket.socket(fileno=int(match[1]))


console, qmp = inherited("console"), inherited("qmp")
token_match = re.search(r"EJECTABLE=(\S+)", options)
assert token_match
token = token_match[1]
gone = threading.Event()
fallen = threading.Event()
plugged = threading.Event()
plugged.set()


def say(words: str) -> None:
    console.sendall(f"[    1.000000] {token}: {words}\r\n".encode())


OOPS = """\
BUG: kernel NULL pointer dereference, address: 0000000000000000
#PF: supervisor instruction fetch in kernel mode
#PF: error_code(0x0010) - not-present page
Oops: 0010 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: 9 Comm: kworker/u2:0 Not tainted 6.9.0 #1
Workqueue: kacpi_hotplug acpi_hotplug_work_fn
RIP: 0010:0x0
Code: Unable to access opcode bytes at 0xffffffffffffffd6.
Call Trace:
 <TASK>
 vp_del_vqs+0x6e/0x220
 virtblk_remove+0x55/0x90
 virtio_dev_remove+0x3d/0x90
 </TASK>
---[ end trace 0000000000000000 ]---
"""


# The same kernel dies of something else: in a function of no removal, in the removal's path with no known signature.
ELSEWHERE = OOPS.replace("Workqueue: kacpi_hotplug acpi_hotplug_work_fn\n", "").replace(
    " vp_del_vqs+0x6e/0x220\n virtblk_remove+0x55/0x90\n virtio_dev_remove+0x3d/0x90\n", " ext4_x+0x6e/0x220\n"
)
UNKNOWN = OOPS.replace(" vp_del_vqs+0x6e/0x220\n virtblk_remove", " kfree+0x6e/0x220\n virtblk_remove")
SYSRQ = """\
sysrq: Trigger a crash
Kernel panic - not syncing: sysrq triggered crash
CPU: 0 PID: 97 Comm: sh Not tainted 6.9.0 #1
Call Trace:
 <TASK>
 panic+0x118/0x2f0
 sysrq_handle_crash+0x16/0x20
 __handle_sysrq+0xa1/0x180
 write_sysrq_trigger+0x23/0x40
 </TASK>
---[ end Kernel panic - not syncing: sysrq triggered crash ]---
"""
# What is an event, or not even that, and ends nothing.
HARMLESS = """\
mydrv 0000:00:05.0: BUG: the firmware says so
mydrv 0000:00:05.0: Internal error: none, only a test; Oops: nothing
BUG: sleeping function called from invalid context at mm/page_alloc.c:5000
in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 11, name: kworker/0:1
CPU: 0 PID: 11 Comm: kworker/0:1 Not tainted 6.9.0 #1
Call Trace:
 <TASK>
 __might_resched+0x1c0/0x220
 some_timer_work+0x20/0x40
 </TASK>
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kworker/0:1:11]
CPU: 0 PID: 11 Comm: kworker/0:1 Not tainted 6.9.0 #1
RIP: 0010:some_timer_work+0x20/0x40
Call Trace:
 <TASK>
 process_one_work+0x1c0/0x220
 </TASK>
"""
BESIDE = {"sysrq-beside": SYSRQ, "oopses-elsewhere": ELSEWHERE, "oopses-unknown": UNKNOWN, "harmless": HARMLESS}


def print_report(text: str = OOPS) -> None:
    for line in text.splitlines():
        console.sendall(f"[    7.123456] {line}\r\n".encode())


def flood() -> None:
    block = b"noise " * 1024 + b"\n"
    while True:
        console.sendall(block)


def requests() -> Iterator[dict[str, Any]]:
    """What is asked: JSON texts, one behind the other; nothing else marks their end."""
    rest = ""
    while piece := qmp.recv(4096):
        rest += piece.decode()
        while rest.lstrip():
            try:
                asked, end = json.JSONDecoder().raw_decode(rest.lstrip())
            except ValueError:
                break
            rest = rest.lstrip()[end:]
            yield asked


def serve_qmp() -> None:
    if behaviour == "mute-qmp":
        time.sleep(1000)
    version = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}
    qmp.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\r\n")
    for asked in requests():
        if asked["execute"] == "device_del":
            if behaviour == "dies-on-unplug":
                sys.stderr.write("qemu-system-x86_64: it broke\n")
                sys.stderr.flush()
                import os

                os._exit(1)
            gone.set()
            lie()
            if behaviour in ("oopses", "oopses-and-stops"):
                print_report()
            if behaviour in BESIDE:
                print_report(BESIDE[behaviour])
            if behaviour in (
                "good",
                "chatters",
                "guest-error",
                "keeps-device",
                "harmless",
                "oopses-when-plugged",
                "oopses-at-first-boot",
            ) or behaviour.startswith("lies-"):
                event = "DEVICE_UNPLUG_GUEST_ERROR" if behaviour == "guest-error" else "DEVICE_DELETED"
                data = {"device": asked["arguments"]["id"], "path": "/x"}
                if event == "DEVICE_DELETED" and behaviour != "keeps-device":
                    plugged.clear()
                stamp = {"seconds": 1, "microseconds": 0}
                qmp.sendall(json.dumps({"event": event, "data": data, "timestamp": stamp}).encode() + b"\r\n")
        if asked["execute"] == "device_add":
            plugged.set()
            if behaviour == "oopses-when-plugged":
                print_report(ELSEWHERE)
        reply = {"return": {}} | ({"id": asked["id"]} if "id" in asked else {})
        qmp.sendall(json.dumps(reply).encode() + b"\r\n")


def serve_console() -> None:
    for line in console.makefile():
        number, _, words = line.strip().partition(" ")
        if not number or (gone.is_set() and behaviour in ("hangs", "oopses-and-stops")):
            continue
        if behaviour == "oopses-with-a-pong" and gone.is_set() and words == "ping" and not fallen.is_set():
            fallen.set()
            pong = f"[    7.000000] {token}: = {number} pong\r\n"
            report = "".join(f"[    7.123456] {line}\r\n" for line in OOPS.splitlines())
            console.sendall((pong + report).encode())  # in one piece
            continue
        if words.startswith("mark "):
            say(f"mark {number} {words.partition(' ')[2]}")
        if words.startswith("use ") and behaviour == "oopses-in-use":
            print_report(ELSEWHERE)
        if words == "see":
            say(f"= {number} " + ("0000:00:06.0,0x1001,1,virtio0,0,virtio_blk" if plugged.is_set() else ""))
        else:
            say(f"= {number} " + ("pong" if words == "ping" else "ok"))


# What a QEMU that its guest took over may say instead of, or before, what was asked for.
QMP_LIES = {
    "lies-data": b'{"event": "DEVICE_DELETED", "data": 7, "timestamp": {}}\r\n',
    "lies-list": b'{"event": "DEVICE_DELETED", "data": [{"device": 1}], "timestamp": 3}\r\n',
    "lies-name": b'{"event": {"a": []}, "data": {"device": "\\u001b]0;owned\\u0007"}}\r\n',
    "lies-deep": b'{"event": "X", "data": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\r\n",
    "lies-bytes": b'\xff\xfe{"event"\r\n',
    "lies-long": b'{"event": "X", "data": "' + b"x" * (8 << 20) + b'"}\r\n',
    "lies-number": b'{"event": "X", "data": ' + b"9" * 6000 + b"}\r\n",
    "lies-reply": b'{"return": {}, "id": "nobody"}\r\n{"return": 1}\r\n{"error": 1, "id": []}\r\n{}\r\n[]\r\n',
    "lies-many": b'{"event": "DEVICE_DELETED", "data": {"device": "x"}, "timestamp": {}}\r\n' * 50_000,
}
CONSOLE_LIES = {
    "lies-release": ["hello \x1b]0;owned\x07\u202e6.9.0", "up"],
    "lies-marks": [
        "mark 99999999999999999999 trigger",
        "mark -1 x",
        "mark by 7",
        "mark by \u00b2",
        "mark",
        "= \u00b2 pong",
    ],
    "lies-answers": [f"= {at} pong" for at in range(200)] + ["= 1 \x1b[2J", "= " + "9" * 5000 + " ok"],
    "lies-words": ["\x1b[2J<b>$(touch /tmp/owned)", "", " ", ":", "hello", "hello", "up", "up"],
}


def lie() -> None:
    if behaviour in QMP_LIES:
        try:
            qmp.sendall(QMP_LIES[behaviour])
        except OSError:  # the other side has had enough
            return
    for words in CONSOLE_LIES.get(behaviour, []):
        say(words)


threading.Thread(target=serve_qmp, daemon=True).start()
if behaviour == "kvm-fails" and "-accel kvm" in options:
    sys.stderr.write("KVM internal error. Suberror: 1\nemulation failure\n")
    sys.stderr.flush()
    time.sleep(1000)
if behaviour == "refuses":
    sys.stderr.write("qemu-system-x86_64: failed to initialize kvm: Permission denied\n")
    sys.exit(1)
if behaviour == "banner":
    console.sendall(b"[    0.000000] Linux version 6.9.0 (x@y) #1\r\n")
if behaviour == "floods":
    flood()
if behaviour == "silent":
    time.sleep(1000)
if behaviour == "panics-at-boot":
    console.sendall(b"[    0.900000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n")
    console.sendall(b"[    0.900000] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs ]---\r\n")
    time.sleep(1000)
if behaviour == "oopses-at-boot" or (behaviour == "oopses-at-first-boot" and "earlyprintk" not in options):
    print_report(ELSEWHERE.replace("ext4_x", "acpi_init"))
    time.sleep(1000)
lie()
say("hello 6.9.0")
say("up")
if behaviour == "chatters":
    threading.Thread(target=flood, daemon=True).start()
if behaviour == "never-reads":
    time.sleep(1000)
serve_console()
