# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs, run without a shell, within a time and with bounded output."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from ejectable.errors import Missing

__all__ = ["Finished", "paste", "run", "which"]

MAX_OUTPUT = 8 << 20  # bytes of each stream that are kept
REAPING_S = 10.0
# Package managers translate, colour and page what they say; we read it.
PLAIN = {"LC_ALL": "C.UTF-8", "LANGUAGE": "C", "TERM": "dumb", "PAGER": "cat", "SYSTEMD_COLORS": "0"}


_left_at_work: list[subprocess.Popen[bytes]] = []  # subprocess warns of one that nobody knows any more


class Finished(msgspec.Struct, frozen=True):
    """A program that ended. `code` is negative for a signal."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """It ended with 0."""
        return self.code == 0

    @property
    def last(self) -> str:
        """The last line it said, for a message."""
        lines = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else f"it ended with {self.code}"


def which(program: str) -> str | None:
    """Where a program is, /sbin included: a user's PATH often lacks it."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def paste(argv: Sequence[str]) -> str:
    """The command as a person can paste it."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    hint: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    unbroken: bool = False,
) -> Finished:
    """Run a program to its end. It gets no standard input, and a process group of its own that ends with it.

    `unbroken`: Ctrl-C waits until it is done, and nothing ends it before: a package manager that is killed half-way
    leaves what nobody can remove. It goes on by itself where it takes too long.
    Raises `Missing` where there is no such program (`hint` says how to get it) and where it takes too long.
    """
    program = which(argv[0])
    if program is None:
        raise Missing(f"`{argv[0]}` was not found.", hint=hint)
    # Files, not pipes: a child of the program that keeps a pipe open would keep us waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env={**os.environ, **PLAIN, **(env or {})},
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except KeyboardInterrupt:
            if unbroken:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout_s)
            raise
        except subprocess.TimeoutExpired:
            left = ""
            if unbroken:
                _left_at_work.append(process)
                left = f" It is still at work (process {process.pid})."
            raise Missing(f"`{paste(argv)}` did not end within {timeout_s:.0f} s.{left}", hint=hint) from None
        finally:
            if process.poll() is None and not unbroken:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                # A process that waits in the kernel without end outlives even that.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(REAPING_S)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(MAX_OUTPUT).decode("utf-8", "replace"))
    return Finished(tuple(argv), code, *texts)
