# SPDX-License-Identifier: GPL-2.0-or-later
"""One command of the tool run on a hostile tree, watched: where it writes, what it starts, how long, how much memory.

    outcome = watched(["check", "--root", "/some/tree"], writable=[tree], user="nobody")
    assert not outcome.faults

As root the command runs in a mount namespace of its own in which everything but a few folders is read-only: a write
elsewhere fails, and is seen. An audit hook (PEP 578) in it notes every process that it starts and every file that it
opens for writing.
"""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = ["MOST_MEMORY", "MOST_SECONDS", "Watched", "watched"]

MOST_SECONDS = 30.0
MOST_MEMORY = 1 << 30
CODES = frozenset({0, 2, 3, 64, 65, 69})
# What a terminal may obey: C0 without the line's end, DEL, C1, and what turns writing round.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HOOK = """
import json, os, resource, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
def note(kind, what):
    os.write(log, (json.dumps([kind, str(what)]) + "\\n").encode())
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system"):
        note("process", arguments[0] if event != "os.spawn" else arguments[1])
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        note("write", arguments[0])
    elif event == "socket.connect":
        note("connect", arguments[1])
sys.addaudithook(hook)
from ejectable.cli.app import run
code = 70
try:
    code = run(sys.argv[2:])
finally:
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    note("memory", most << 10)
sys.exit(code)
"""


class Watched(msgspec.Struct, frozen=True):
    """What a command did. `faults` are sentences; there should be none."""

    arguments: tuple[str, ...]
    code: int
    seconds: float
    memory: int  # bytes, the most that was resident
    processes: tuple[str, ...]
    faults: tuple[str, ...]
    said: str


def watched(
    arguments: Sequence[str],
    *,
    writable: Sequence[Path],
    allowed: frozenset[str] = frozenset(),
    user: str | None = None,
) -> Watched:
    """Run `ejectable ARGUMENTS`, which may write to the folders `writable` and start the programs `allowed`."""
    with tempfile.TemporaryDirectory(prefix="watched-") as name:
        folder = Path(name)
        log, home = folder / "log", folder / "home"
        log.touch()
        home.mkdir()
        owner = pwd.getpwnam(user) if user else None
        if owner:
            for path in (folder, log, home):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        command = [sys.executable, "-c", HOOK, str(log), *arguments]
        if os.geteuid() == 0:
            command = _read_only(command, [*writable, folder], owner)
        environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home)}
        before = time.monotonic()
        said = b""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=MOST_SECONDS + 10,
                check=False,
            )
            code, said = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            code, said = -9, error.stdout or b""
        seconds = time.monotonic() - before
        notes = [json.loads(line) for line in log.read_text().splitlines()]
        memory = max((int(what) for kind, what in notes if kind == "memory"), default=0)
        text = said.decode("utf-8", "surrogateescape")
        own = tuple(str(path) for path in (*writable, folder))
        faults = [*_of_run(code, seconds, memory, text), *_of_notes(notes, own, allowed)]
    processes = tuple(what for kind, what in notes if kind == "process")
    return Watched(tuple(arguments), code, seconds, memory, processes, tuple(faults), text)


def _read_only(command: list[str], writable: Sequence[Path], owner: pwd.struct_passwd | None) -> list[str]:
    """The command in a mount namespace where only these folders can be written."""
    script = ["mount --make-rprivate / && mount -o remount,ro,bind / && mount -t tmpfs tmpfs /var/lib || exit 99"]
    for number, _ in enumerate(writable, 1):
        script.append(f'mount --bind "${number}" "${number}" && mount -o remount,rw,bind "${number}" || exit 99')
    drop = f"setpriv --reuid={owner.pw_uid} --regid={owner.pw_gid} --clear-groups " if owner else ""
    script.append(f'shift {len(writable)}; exec {drop}"$@"')
    return ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh", *map(str, writable), *command]


def _of_run(code: int, seconds: float, memory: int, said: str) -> list[str]:
    faults = []
    if code not in CODES:
        faults.append(f"exit code {code}: {said[-300:]!r}")
    if seconds > MOST_SECONDS:
        faults.append(f"it took {seconds:.0f} s")
    if memory > MOST_MEMORY:
        faults.append(f"it took {memory >> 20} MiB")
    if found := CONTROL.search(said):
        faults.append(f"{found[0]!r} reached the terminal: {said[max(0, found.start() - 40) : found.end() + 40]!r}")
    if "Traceback" in said:
        faults.append("a traceback")
    return faults


def _of_notes(notes: Sequence[Sequence[str]], own: tuple[str, ...], allowed: frozenset[str]) -> list[str]:
    faults = []
    for kind, what in notes:
        # What is opened below a descriptor has a name without a folder: there the read-only mount is the judge.
        if kind == "write" and what.startswith("/") and not what.startswith((*own, "/dev/null", "/proc/self/")):
            faults.append(f"it opened {what} for writing")
        if kind == "process" and Path(what).name not in allowed:
            faults.append(f"it started {what}")
        if kind == "connect":
            faults.append(f"it connected to {what}")
    return faults
