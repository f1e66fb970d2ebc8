# SPDX-License-Identifier: GPL-2.0-or-later
"""The attack: an artefact whose truth is known, what people do to files, and what the tool may say of the result.

    for case in cases(artefacts, transformations):
        outcome = attack(case, folder)
        assert outcome.allowed, outcome

An affected artefact may be called affected, unknown, or be refused (65, 69), whatever was done to it. It may never be
called safe, never end in a fault of ours (70), a traceback, or another exit code.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ejectable.cli.app import run

__all__ = ["Artefact", "Case", "Context", "Kind", "Outcome", "Transformation", "attack", "cases"]

COMMANDS: dict[str, list[str]] = {
    "tree": ["check", "--quiet", "--root"],
    "folder": ["kernel", "--quiet"],
    "file": ["kernel", "--quiet"],
    "log": ["crash", "--quiet"],
}

Kind = Literal["tree", "folder", "file", "log"]
NOBODY = 65534
NEVER_SAFE = frozenset({2, 3, 65, 69})


class Artefact(msgspec.Struct, frozen=True):
    """Something affected to judge. `build(folder, variant)` makes it, or its "fixed" twin, and says where it is."""

    name: str
    kind: Kind  # a root tree for `check`; a folder or a file for `kernel`; a log for `crash`
    build: Callable[[Path, str], Path]
    code: int = 2  # as it is; 3 where it shows an affected kernel and not which devices there are
    small: bool = True  # so that every pair is tried on it
    shows: Callable[[Path], bool] | None = None  # whether anything of it is left, where an attack may lose all

    def command(self, path: Path) -> list[str]:
        """The command line that asks about it."""
        return [*COMMANDS[self.kind], str(path)]


class Context(msgspec.Struct):
    """What a transformation may use: chance that repeats, the fixed twin, and the command, to run it before."""

    chance: random.Random
    twin: Callable[[], Path]
    ask: Callable[[Path], int]


class Transformation(msgspec.Struct, frozen=True):
    """One thing that people do to files. `apply(path, context)` says where the result is; `None`: it does not fit."""

    name: str
    kinds: tuple[Kind, ...]
    apply: Callable[[Path, Context], Path | None]
    as_nobody: bool = False  # it takes a permission away, which root does not need


class Case(msgspec.Struct, frozen=True):
    """One artefact and what is done to it, in this order."""

    artefact: Artefact
    steps: tuple[Transformation, ...]

    @property
    def name(self) -> str:
        """`artefact: step, step`."""
        return f"{self.artefact.name}: {', '.join(step.name for step in self.steps) or 'as it is'}"


class Outcome(msgspec.Struct, frozen=True):
    """What was said of the result. `fits` is false where a step could not be taken: then nothing was asked."""

    name: str
    fits: bool
    code: int = 0
    said: str = ""

    @property
    def allowed(self) -> bool:
        """Whether that may be said of what is affected."""
        return not self.fits or (self.code in NEVER_SAFE and "Traceback" not in self.said)


def cases(
    artefacts: Sequence[Artefact], transformations: Sequence[Transformation], *, pairs: bool, most: int | None = None
) -> list[Case]:
    """Every transformation alone, or every ordered pair of two, on every artefact that it fits; at `most` so many.

    Those that are left out are chosen by a hash of their names: the same ones each time.
    """
    found = list(_all(artefacts, transformations, pairs=pairs))
    if most is None or len(found) <= most:
        return found
    return sorted(found, key=lambda case: hashlib.sha256(case.name.encode()).digest())[:most]


def _all(artefacts: Sequence[Artefact], transformations: Sequence[Transformation], *, pairs: bool) -> Iterator[Case]:
    for artefact in artefacts:
        fitting = [step for step in transformations if artefact.kind in step.kinds]
        for steps in itertools.permutations(fitting, 2 if pairs else 1):
            yield Case(artefact, steps)


def attack(case: Case, folder: Path, tool: Sequence[str] = ()) -> Outcome:
    """Do it, and ask: this tool in this process, or another one by its command. `folder` is this case's alone."""
    cache = folder / "cache"
    cache.mkdir(mode=0o777, parents=True, exist_ok=True)
    cache.chmod(0o777)
    chance = random.Random(case.name)

    def ask(path: Path) -> int:
        return _run(case.artefact.command(path), cache, tool)[0]

    context = Context(chance, lambda: case.artefact.build(_new(folder / "twin"), "fixed"), ask)
    path = case.artefact.build(_new(folder / "given"), "affected")
    try:
        for step in case.steps:
            try:
                changed = step.apply(path, context)
            except (OSError, shutil.Error, UnicodeError):  # the step before left nothing that this one can be done to
                changed = None
            if changed is None:
                return Outcome(case.name, fits=False)
            path = changed
        if case.artefact.shows is not None and path.is_file() and not case.artefact.shows(path):
            return Outcome(case.name, fits=False)
        run = _as_nobody if os.geteuid() == 0 and any(step.as_nobody for step in case.steps) else _run
        code, said = run(case.artefact.command(path), cache, tool)
        return Outcome(case.name, fits=True, code=code, said=said)
    finally:
        _make_removable(folder)


def _run(arguments: list[str], cache: Path, tool: Sequence[str]) -> tuple[int, str]:
    """The exit code, and what was printed on both streams."""
    if tool:
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": tool[1]}
        done = subprocess.run(
            [tool[0], "-m", "ejectable", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")
    said = io.StringIO()
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(arguments)
    except Exception:  # noqa: BLE001  (a fault of the tool is what is looked for)
        code = 1
        said.write(traceback.format_exc())
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
    return code, said.getvalue()


def _as_nobody(arguments: list[str], cache: Path, tool: Sequence[str]) -> tuple[int, str]:
    """The same, asked by a user who owns nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code, said = 1, "the child of the attack died"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123  (until the end of this process)
            code, said = _run(arguments, cache, tool)
        finally:
            os.write(writer, json.dumps([code, said[:4000]]).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    code, said = json.loads(answer)
    return code, said


def _new(folder: Path) -> Path:
    if folder.exists():
        _make_removable(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _make_removable(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
