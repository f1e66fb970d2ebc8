# SPDX-License-Identifier: GPL-2.0-or-later
"""One command of the tool run on a hostile tree, watched: where it writes, what it starts, how long, how much memory.

    outcome = watched(["check", "--root", "/some/tree"], writable=[tree], user="nobody", how="strace")
    assert not outcome.faults

As root the command runs in a mount namespace of its own in which everything but a few folders is read-only: a write
elsewhere fails. An audit hook (PEP 578) in it notes every process that it starts and every file that it opens for
writing; strace, where it is asked for, what the kernel was asked to do. On a terminal (`how="terminal"`) it paints,
and nothing but its own painting may come out.
"""

import contextlib
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
from typing import Literal

import msgspec

from tests.attack.trace import STRACE, faults_of

__all__ = ["MOST_MEMORY", "MOST_SECONDS", "How", "Watched", "watched"]

How = Literal["hook", "strace", "terminal"]
MOST_SECONDS = 30.0
KILLED_S = 10 * MOST_SECONDS
MOST_MEMORY = 1 << 30
CODES = frozenset({0, 2, 3, 64, 65, 69})
# What a terminal may obey: C0 without the line's end, DEL, C1, what turns writing round, bytes that are no UTF-8.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\udc80-\udcff]")
# What we paint with ourselves: colours, the cursor hidden and shown, a line drawn anew; the terminal adds \r.
PAINT = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[lh]|\x1b\\[[0-9]*[AK]|\r(?=\n|\x1b|$)|\r")
# What we write as root, into an empty file system of the namespace; and where semaphores are (sem_overview(7)).
OURS = ("/var/lib/ejectable", "/dev/shm")
READ_ONLY = """
mount --make-rprivate / || exit 99
while read -r _ _ _ _ place _; do
    case "$place" in /dev/shm|/dev/pts|/proc) ;; *) mount -o remount,ro,bind "$place" 2>/dev/null ;; esac
done < /proc/self/mountinfo
mkdir /usr/.cannot-be 2>/dev/null && exit 99
mount -t tmpfs tmpfs /var/lib || exit 99
"""
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
    # Itself and the largest child: as much as was ever resident at once, or more. Not ru_maxrss of itself: exec(2)
    # carries the peak of the process that forked along.
    with open("/proc/self/status") as status:
        most = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    most += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    note("memory", most << 10)
    note("computed", sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
sys.exit(code)
"""


class Watched(msgspec.Struct, frozen=True):
    """What a command did. `faults` are sentences; there should be none."""

    arguments: tuple[str, ...]
    code: int
    seconds: float  # as on a machine that does nothing else
    memory: int  # bytes that were resident at once, at most
    processes: tuple[str, ...]
    faults: tuple[str, ...]
    said: str


def watched(
    arguments: Sequence[str],
    *,
    writable: Sequence[Path],
    allowed: frozenset[str] = frozenset(),
    user: str | None = None,
    how: How = "hook",
    before: Sequence[tuple[str, str]] = (),
) -> Watched:
    """Run `ejectable ARGUMENTS`, which may write to the folders `writable` and start the programs `allowed`.

    `before` are (name, target) of links that somebody put in the caches of the user who runs it.
    """
    with tempfile.TemporaryDirectory(prefix="watched-") as name:
        folder = Path(name)
        log, home, traced = folder / "log", folder / "home", folder / "strace"
        home.mkdir()
        for path in (log, traced):
            path.touch()
        for link, target in before:
            (home / link).symlink_to(target)
        owner = pwd.getpwnam(user) if user else None
        if owner:
            for path in (folder, log, home, traced):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        command = [sys.executable, "-c", HOOK, str(log), *arguments]
        if owner:
            command = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", *command]
        if how == "strace":
            command = [*STRACE, "-o", str(traced), "--", *command]
        if os.geteuid() == 0:
            command = _read_only(command, [*writable, folder])
        environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home), "TERM": "xterm-256color"}
        begun = time.monotonic()
        code, said = (_on_a_terminal if how == "terminal" else _through_a_pipe)(command, environment)
        waited = time.monotonic() - begun
        notes = [json.loads(line) for line in log.read_text().splitlines()]
        memory = max((int(what) for kind, what in notes if kind == "memory"), default=0)
        computed = max((float(what) for kind, what in notes if kind == "computed"), default=0.0)
        # On a machine where others compute too, as long as it would have taken alone: of what waits for a processor,
        # this is one. What hangs is found all the same, when it is killed.
        seconds = max(computed, waited * min(1.0, (os.cpu_count() or 1) / max(os.getloadavg()[0], 0.1)))
        text = said.decode("utf-8", "surrogateescape")
        shown = PAINT.sub("", text) if how == "terminal" else text
        own = (*(str(path) for path in (*writable, folder)), *OURS)
        faults = [*_of_run(code, seconds, memory, shown), *_of_notes(notes, own, allowed)]
        if how == "strace":
            faults += faults_of(traced, own, allowed)
            if not traced.stat().st_size:
                faults.append("strace saw nothing")
    processes = tuple(what for kind, what in notes if kind == "process")
    return Watched(tuple(arguments), code, seconds, memory, processes, tuple(dict.fromkeys(faults)), text)


def _through_a_pipe(command: list[str], environment: dict[str, str]) -> tuple[int, bytes]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=KILLED_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return -9, error.stdout or b""
    return done.returncode, done.stdout


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, bytes]:
    ours, theirs = os.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = bytearray()
    with contextlib.suppress(OSError):  # EIO: the last of them has closed it
        while piece := os.read(ours, 1 << 16):
            said += piece
    os.close(ours)
    try:
        return process.wait(KILLED_S), bytes(said)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -9, bytes(said)


def _read_only(command: list[str], writable: Sequence[Path]) -> list[str]:
    """The command in a mount namespace where only these folders can be written, and an empty /var/lib."""
    script = [READ_ONLY]
    for number, _ in enumerate(writable, 1):
        script.append(f'mount --bind "${number}" "${number}" && mount -o remount,rw,bind "${number}" || exit 99')
    script.append(f'shift {len(writable)}; exec "$@"')
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
