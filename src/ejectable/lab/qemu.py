# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a confined QEMU process, reads what it complains of, and ends it.

Everything it is given are open files: the kernel and the initramfs in memory, two socket pairs for console and
QMP. Nothing of it has a name in the file system, so nothing has to be cleaned up, however we end.
"""

import asyncio
import ctypes
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ejectable.errors import Missing
from ejectable.lab.machines import PROGRAMS
from ejectable.model import Arch

__all__ = ["Qemu", "in_memory", "program"]

PACKAGES: dict[Arch, str] = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}
# Guest memory, QEMU's own and the translator's buffer; a QEMU that wants more than this is not well.
ADDRESS_SPACE = 6 << 30
STDERR_LIMIT = 64 << 10
GRACE_S = 2.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38


def program(arch: Arch) -> str:
    """The path of QEMU for this architecture; raises `Missing`."""
    found = shutil.which(PROGRAMS[arch])
    if found is None:
        raise Missing(
            f"{PROGRAMS[arch]} was not found: it is needed to run {arch} kernels.",
            hint=f"Install it: `apt-get install {PACKAGES[arch]}`, or your system's package of QEMU.",
        )
    return found


def in_memory(name: str, content: bytes) -> int:
    """A file without a name, holding `content`; the descriptor is inherited by whoever is told to.

    Raises `Missing` where there is no room for it.
    """
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError as error:
        raise _no_room(name, content, error) from error
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        os.close(descriptor)
        raise _no_room(name, content, error) from error
    return descriptor


def _no_room(name: str, content: bytes, error: OSError) -> Missing:
    return Missing(
        f"The guest's {name} ({len(content)} bytes) could not be put into memory: {error.strerror}.",
        hint="Free some memory, or run fewer guests at once (--jobs).",
    )


class Qemu:
    """A running QEMU. `arguments` may hold {console}, {qmp}: the numbers of the descriptors it inherits."""

    def __init__(self, process: asyncio.subprocess.Process, console: socket.socket, qmp: socket.socket) -> None:
        self.process = process
        self.console = console
        self.qmp = qmp
        self.stderr = b""
        self._drain = asyncio.ensure_future(self._read_stderr())

    @classmethod
    async def start(
        cls, command: Callable[[int, int], Sequence[str]], *, inherit: Sequence[int], limit_s: float
    ) -> "Qemu":
        """Start `command(console_fd, qmp_fd)`; `limit_s` bounds the processor time it may use."""
        console, console_theirs = socket.socketpair()
        qmp, qmp_theirs = socket.socketpair()
        try:
            arguments = command(console_theirs.fileno(), qmp_theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(console_theirs.fileno(), qmp_theirs.fileno(), *inherit),
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LC_ALL": "C"},
                cwd="/",
                start_new_session=True,  # a Ctrl-C of the terminal is ours to handle, not QEMU's
                preexec_fn=_confine(os.getpid(), limit_s),
            )
        except OSError as error:
            console.close()
            qmp.close()
            raise Missing(f"QEMU could not be started: {error}.") from error
        finally:
            console_theirs.close()
            qmp_theirs.close()
        return cls(process, console, qmp)

    async def stop(self) -> None:
        """End it, whatever state it is in, and take back what belonged to it."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            # A process in an uninterruptible sleep cannot be waited for; it ends when it wakes.
            async with asyncio.timeout(GRACE_S):
                await self.process.wait()
        self._drain.cancel()
        with suppress(asyncio.CancelledError):
            await self._drain
        self.console.close()
        self.qmp.close()

    @property
    def last_words(self) -> str:
        """The last line of what it wrote on standard error, without the program's name."""
        lines = [line for line in self.stderr.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].partition(": ")[2] or lines[-1] if lines else ""

    @property
    def internal_error(self) -> bool:
        """Whether KVM gave up on the guest (accel/kvm/kvm-all.c prints these words)."""
        return b"KVM internal error" in self.stderr or b"kvm run failed" in self.stderr

    async def _read_stderr(self) -> None:
        stream = self.process.stderr
        while stream is not None and (piece := await stream.read(4096)):
            self.stderr = (self.stderr + piece)[-STDERR_LIMIT:]


def _confine(parent: int, limit_s: float) -> Callable[[], None]:
    """What the child does between fork and exec: bounds on what it may use, and an end with its parent's."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    limits = {
        resource.RLIMIT_AS: ADDRESS_SPACE,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,  # it has nothing to write to
        resource.RLIMIT_CPU: int(limit_s) + 10,
    }

    def confine() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked to be told
            os.kill(os.getpid(), signal.SIGKILL)
        for name, most in limits.items():
            hard = resource.getrlimit(name)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(name, (bound, bound))

    return confine
