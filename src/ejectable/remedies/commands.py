# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs other programs without a shell, within a time, with bounded output and an allow-listed environment.

As root, only programs are run that nobody but root may replace, and of the environment that we were called with only
what is named here reaches them: a kept HOME, LD_PRELOAD or GIT_DIR is somebody else's. While root works for a user
(`acting`), they run with that user's rights for good, and in none but root's folders are they looked for all the same.
"""

import os
import pwd
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ejectable.errors import Missing
from ejectable.remedies.acting import acting, as_ourselves
from ejectable.remedies.ownership import other_writer

__all__ = ["Finished", "environment", "paste", "run", "run_checked", "which"]

MAX_OUTPUT = 8 << 20  # bytes of each stream that are kept
REAPING_S = 10.0
# /sbin included: a user's PATH often lacks it.
FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Package managers translate, colour and page what they say; we read it. They ask no questions, and nobody restarts
# services on its own (needrestart does, unasked, where nobody can answer).
PLAIN = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "C",
    "TERM": "dumb",
    "PAGER": "cat",
    "SYSTEMD_COLORS": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",
}
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
PASSED = (*PROXIES, *(name.upper() for name in PROXIES))
_at_work: list["subprocess.Popen[bytes]"] = []  # what took too long and is not killed
# What a user's own programs may know besides; root's have no need of it.
PASSED_TO_USERS = ("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


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
    """The absolute path of a program; as root, of one that nobody else may replace. `None` where there is none."""
    places = [Path(program)] if "/" in program else [Path(folder) / program for folder in _folders()]
    for place in places:
        with suppress(OSError):
            if place.is_file() and os.access(place, os.X_OK) and not (_privileged() and other_writer(place)):
                return str(place.absolute())
    return None


def environment(*, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a program: plain words, the proxies of the system, a home, and `more`."""
    root = _privileged()
    names = PASSED if root else (*PASSED, *PASSED_TO_USERS)
    found = {name: os.environ[name] for name in names if name in os.environ}
    folders = [folder for folder in _folders() if not (root and other_writer(folder))]
    return {**found, "PATH": ":".join(folders), "HOME": _home(), **PLAIN, **(more or {})}


def paste(argv: Sequence[str]) -> str:
    """The command as a person can paste it."""
    return shlex.join(argv)


def run_checked(
    argv: Sequence[str], *, timeout_s: float, hint: str | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a program that has to succeed; raises `Missing` with its last words where it does not."""
    finished = run(argv, timeout_s=timeout_s, hint=hint, env=env)
    if not finished.ok:
        raise Missing(f"`{paste(argv)}` failed: {finished.last}", hint=hint)
    return finished


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

    `unbroken`: it is never killed, and Ctrl-C waits until it is done; a package manager that is killed half-way leaves
    what nobody can remove. Raises `Missing` where there is no such program (`hint` says how to get it) and where it
    takes too long.
    """
    program = which(argv[0])
    if program is None:
        raise Missing(f"`{argv[0]}` was not found{_refused(argv[0])}.", hint=hint)
    # Files, not pipes: a child of the program that keeps a pipe open would keep us waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        owner, surroundings = acting(), environment(more=env)
        rights: dict[str, Any] = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if owner else {}
        with as_ourselves():  # the real identity changes too, which only root may
            process = subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=surroundings,
                start_new_session=True,
                **rights,
            )
        try:
            code = process.wait(timeout_s)
        except KeyboardInterrupt:
            if unbroken:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout_s)
            raise
        except subprocess.TimeoutExpired:
            if unbroken:
                _at_work.append(process)
            still = " It is still at work." if unbroken else ""
            raise Missing(f"`{paste(argv)}` did not end within {timeout_s:.0f} s.{still}", hint=hint) from None
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


def _folders() -> list[str]:
    """Where programs are looked for: where we were told to, and where systems have them."""
    told = [folder for folder in os.environ.get("PATH", "").split(":") if folder.startswith("/")]
    return list(dict.fromkeys([*told, *FOLDERS]))


def _refused(program: str) -> str:
    """Why a program that is there is not run."""
    for folder in _folders() if _privileged() and "/" not in program else ():
        place = Path(folder) / program
        if place.is_file() and (said := other_writer(place)):
            return f" where only root may write: {said}"
    return ""


def _privileged() -> bool:
    """Whether this is root, also while it works for somebody."""
    return os.geteuid() == 0 or acting() is not None


def _home() -> str:
    """Root's own, whatever was kept of another user's; none while root works for a user, whose settings run things."""
    if acting() is not None:
        return "/nonexistent"
    if os.geteuid() == 0:
        with suppress(KeyError):
            return pwd.getpwuid(0).pw_dir
        return "/root"
    return os.environ.get("HOME") or "/nonexistent"
