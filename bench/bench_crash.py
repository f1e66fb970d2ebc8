# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs: a healthy one of 1 GB beside GNU grep, one crash after another, hostile lines, several files at once."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from bench.run import TOOL, Command, Group, Limit
from corpus.archive import cache_folder

__all__ = ["BENCHMARKS"]

HEALTHY_BYTES = 1 << 30
DENSE_BYTES = 64 << 20
DENSE_RATE = 20 << 20  # bytes a second and core
START_S = 0.35  # of the program, on a busy machine
MEMORY_MIB = 150

# A dozen of the words that people look for in a log.
WORDS = (
    "BUG:|Oops|WARNING:|general protection fault|Kernel panic|Call Trace|Unable to handle|self-detected stall"
    "|soft lockup|blocked for more than|KASAN|invalid opcode"
)
MESSAGES = (
    "usb {0}-1: new high-speed USB device number {1} using xhci_hcd",
    'audit: type=1400 audit(1710813600.{1}:{0}): apparmor="STATUS" operation="profile_load"',
    "EXT4-fs (vda{0}): mounted filesystem with ordered data mode. Quota mode: none.",
    "ACPI: PCI: Interrupt link LNKA configured for IRQ {0}",
    "e1000e 0000:00:1f.6 eth{0}: NIC Link is Up {1} Mbps Full Duplex, Flow Control: Rx/Tx",
    "IPv6: ADDRCONF(NETDEV_CHANGE): eth{0}: link becomes ready",
    "systemd[1]: Started session-{1}.scope - Session {1} of User root.",
    "nvme nvme{0}: {1}/0/0 default/read/poll queues",
)
FIXTURES = Path(__file__).parent.parent / "tests" / "crash" / "fixtures"
REPORT = FIXTURES / "defect-disk-acpi-eject-printk.txt"
LINE_BYTES = 1 << 30
HOSTILE_BYTES = 64 << 20
HOSTILE = (
    b"[",
    b"BUG: ",
    b" at: ",
    b"[ 1.000000]",
    b"Tainted: G ",
    b"Comm: a ",
    b"\x1b[",
    b'{"MESSAGE": "',
    b"+0x1/0x1 ",
)


def _written(name: str, size: int, piece: Callable[[random.Random, int], bytes]) -> str:
    """A file of `size` bytes in the cache, made of pieces: the same every time."""
    path = cache_folder() / "bench" / name
    if not path.exists() or path.stat().st_size < size:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = random.Random(name)
        aside = path.with_suffix(".part")
        with aside.open("wb") as file:
            number = 0
            while file.tell() < size:
                file.write(piece(rng, number))
                number += 1
        aside.rename(path)
    return str(path)


@cache
def _healthy_lines() -> bytes:
    rng = random.Random(1)
    return "".join(
        f"[{number / 7:12.6f}] {rng.choice(MESSAGES).format(rng.randrange(9), rng.randrange(9999))}\n"
        for number in range(200_000)
    ).encode()


def healthy() -> str:
    """A log of 1 GiB in which nothing went wrong."""
    return _written("healthy.log", HEALTHY_BYTES, lambda _rng, _number: _healthy_lines())


def _crash(rng: random.Random, number: int) -> bytes:
    """The report of a fixture, as another boot would have printed it: another time, other registers."""
    _, _, log = REPORT.read_bytes().partition(b"\n---\n")
    base, other = b"ffff8", f"{rng.randrange(16**5):05x}".encode()
    return log.replace(base, base + other[:3]).replace(b"[   61.", f"[{number % 99999:5d}.".encode())


def dense() -> str:
    """One crash after another."""
    return _written("dense.log", DENSE_BYTES, _crash)


@cache
def _reports() -> tuple[bytes, ...]:
    logs = (path.read_bytes().partition(b"\n---\n")[2] for path in sorted(FIXTURES.glob("*.txt")))
    return tuple(log for log in logs if log.startswith(b"["))


def mixed() -> str:
    """One kind of crash after another: what the tests' fixtures hold, in any order."""
    return _written("mixed.log", DENSE_BYTES, lambda rng, _number: rng.choice(_reports()))


def hostile(size: int) -> str:
    """Lines as long as lines may be, of words that the reader looks for, in an open report."""
    head = b"[    1.000000] BUG: unable to handle page fault for address: 1\n"

    def piece(_rng: random.Random, number: int) -> bytes:
        unit = HOSTILE[number % len(HOSTILE)]
        return head + (b"[    1.000001] " + unit * (16000 // len(unit)) + b"\n") * 8

    return _written(f"hostile-{size >> 20}.log", size, piece)


def line() -> str:
    """A line of 1 GiB."""
    return _written(
        "line.log", LINE_BYTES, lambda _rng, number: b"x" * (1 << 20) if number else b"[    1.000000] BUG: "
    )


def _folder(count: int) -> str:
    for number in range(count):
        _written(f"dense-{count}/{number}.log", DENSE_BYTES // count, _crash)
    return str(cache_folder() / "bench" / f"dense-{count}")


def _quiet() -> Sequence[Command]:
    path = healthy()
    return (
        Command("grep -cE, a dozen words", ("grep", "-cE", WORDS, path), (0, 1)),
        Command("ejectable crash", (TOOL, "crash", "--quiet", path)),
        Command("ejectable crash < log", ("sh", "-c", f"'{TOOL}' crash --quiet < '{path}'")),
    )


def _busy() -> Sequence[Command]:
    return (
        Command("one crash after another", (TOOL, "crash", "--quiet", "--jobs", "1", dense()), (2,)),
        Command("one kind after another", (TOOL, "crash", "--quiet", "--jobs", "1", mixed()), (2,)),
    )


def _strange() -> Sequence[Command]:
    return (
        Command("hostile lines", (TOOL, "crash", "--quiet", "--jobs", "1", hostile(HOSTILE_BYTES)), (0, 3)),
        Command("twice as many", (TOOL, "crash", "--quiet", "--jobs", "1", hostile(2 * HOSTILE_BYTES)), (0, 3)),
        Command("a line of 1 GiB", (TOOL, "crash", "--quiet", line()), (0, 3)),
    )


def _several() -> Sequence[Command]:
    folder = _folder(2)
    return (
        Command("--jobs 1", (TOOL, "crash", "--quiet", "--jobs", "1", folder), (2,)),
        Command("--jobs 2", (TOOL, "crash", "--quiet", "--jobs", "2", folder), (2,)),
    )


BENCHMARKS = (
    Group(
        "crash: a healthy log of 1 GiB",
        _quiet,
        (
            Limit("ejectable crash", ratio=1.0, than="grep -cE, a dozen words"),
            Limit("ejectable crash", mebibytes=MEMORY_MIB),
            Limit("ejectable crash < log", mebibytes=MEMORY_MIB),
        ),
    ),
    Group(
        "crash: one crash after another, 64 MiB",
        _busy,
        (
            Limit("one crash after another", seconds=DENSE_BYTES / DENSE_RATE + START_S),
            Limit("one crash after another", mebibytes=MEMORY_MIB),
            Limit("one kind after another", seconds=DENSE_BYTES / DENSE_RATE + START_S),
            Limit("one kind after another", mebibytes=MEMORY_MIB),
        ),
    ),
    Group(
        "crash: hostile lines; a line of 1 GiB",
        _strange,
        (
            Limit("twice as many", ratio=2.2, than="hostile lines"),  # linear; room for noise
            Limit("twice as many", mebibytes=MEMORY_MIB),
            Limit("a line of 1 GiB", mebibytes=MEMORY_MIB),
        ),
    ),
    Group(
        "crash: several files, --jobs",
        _several,
        (Limit("--jobs 2", times_faster=1.4, than="--jobs 1"),),
    ),
)
