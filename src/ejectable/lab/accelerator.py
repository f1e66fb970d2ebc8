# SPDX-License-Identifier: GPL-2.0-or-later
"""The choice of what runs the guests: KVM where it truly works, emulation otherwise.

A /dev/kvm that opens, and even makes a virtual machine, may still fail inside (nested virtualisation does): the
probe starts the very kernel under KVM and wants to see its first lines.
"""

import asyncio
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from ejectable.errors import Missing
from ejectable.intake import open_cache
from ejectable.lab import guest
from ejectable.lab.case import Case
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.machines import command_line
from ejectable.lab.qemu import Qemu, in_memory

__all__ = ["Accelerator", "choose"]

PROBE_S = 5.0  # a kernel under KVM speaks after a fraction of a second
LOOK_S = 0.2  # between two looks at what QEMU says of it
BANNER = b"Linux version "
KEPT = "kvm.json"
MAX_KEPT = 4096


class Accelerator(msgspec.Struct, frozen=True):
    """What runs the guests, and why."""

    name: Literal["kvm", "tcg"]
    why: str


async def choose(wanted: str, kernel: GuestKernel, machine: str, *, cache: bool = True) -> Accelerator:
    """The accelerator for `auto`, `kvm` or `tcg`; a probe's answer is kept until the next boot of this host."""
    if wanted == "kvm":
        return Accelerator("kvm", "as asked for")
    if wanted == "tcg":
        return Accelerator("tcg", "as asked for")
    host = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    if host != kernel.arch:
        return Accelerator("tcg", f"KVM cannot run {kernel.arch} kernels on this {host} host")
    closed = _closed()
    if closed:
        return Accelerator("tcg", closed)
    known = _recall() if cache else None
    works, why = known if known is not None else await _probe(kernel, machine)
    if known is None and cache:
        _remember(works, why)
    return Accelerator("kvm" if works else "tcg", why)


def _closed() -> str | None:
    """Why KVM is out of reach, or `None`."""
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    return None if os.access("/dev/kvm", os.R_OK | os.W_OK) else "/dev/kvm may not be opened by this user"


async def _probe(kernel: GuestKernel, machine: str) -> tuple[bool, str]:
    """Whether the kernel prints its first line under KVM, and the reason."""
    image = in_memory("kernel", kernel.image)
    empty = in_memory("initramfs", b"")
    case = Case(machine, device="rng", mode="modern")
    try:
        qemu = await Qemu.start(
            lambda console, qmp: command_line(
                case,
                accelerator="kvm",
                kernel=f"/proc/self/fd/{image}",
                initramfs=f"/proc/self/fd/{empty}",
                append=guest.command_line(case, "probe", wordy=True),
                console_fd=console,
                qmp_fd=qmp,
            ),
            inherit=(image, empty),
            limit_s=PROBE_S,
        )
    finally:
        os.close(image)
        os.close(empty)
    said = b""
    deadline = time.monotonic() + PROBE_S
    loop = asyncio.get_running_loop()
    qemu.console.setblocking(False)
    try:
        while BANNER not in said and time.monotonic() < deadline and not qemu.internal_error:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    piece = await loop.sock_recv(qemu.console, 1 << 16)
                if not piece:
                    break
                said = (said + piece)[-(1 << 16) :]
    except OSError:
        pass
    finally:
        await qemu.stop()
    if BANNER in said:
        return True, "the probe's kernel spoke under KVM"
    if qemu.internal_error:
        return False, "KVM fails inside the guest on this host (KVM internal error)"
    if qemu.last_words and qemu.process.returncode not in (None, -9):
        return False, f"KVM does not work on this host: {qemu.last_words[:200]}"
    return False, f"KVM does not work on this host: a kernel under it said nothing for {PROBE_S:.0f} s"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _recall() -> tuple[bool, str] | None:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, Missing):
        with open_cache() as folder:
            kept = json.loads(folder.read(KEPT, MAX_KEPT))
        if kept["boot"] == _boot_id():
            return bool(kept["works"]), str(kept["why"])
    return None


def _remember(works: bool, why: str) -> None:
    with suppress(OSError, RuntimeError, Missing), open_cache(make=True) as folder:
        folder.write(KEPT, json.dumps({"boot": _boot_id(), "works": works, "why": why}).encode())
