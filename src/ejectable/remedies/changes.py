# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing a machine so that it can always be taken back: all of it or nothing, and every step on record.

    with Changes.begin(root, "panic-policy", undo="ejectable fix panic-policy --undo") as changes:
        changes.write("/etc/sysctl.d/90-ejectable.conf", text)
        changes.run(["sysctl", "..."], undo=["sysctl", "..."], ...)

Whatever ends the block early (an error, Ctrl-C, SIGTERM) undoes what was done, last first. Whatever ends the process
(SIGKILL, a power cut) leaves an open record, from which the next `--apply` or `--undo` does the same.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ejectable import host
from ejectable.errors import BadInput, EjectableError, Missing
from ejectable.intake import write_atomically
from ejectable.remedies import audit
from ejectable.remedies.commands import Finished, paste, run
from ejectable.remedies.records import CommandStep, FileStep, Record, Records, Step

__all__ = ["Changes", "interrupted"]

MAX_FILE = 4 << 20  # bytes: what is changed are settings and sources
UNDO_TIMEOUT_S = 600.0


class Changes:
    """The changes of one remedy on one machine; see the module's text. `done` says in sentences what was done."""

    def __init__(self, root: host.Root, remedy: str, *, undo: str) -> None:
        self.root = root
        self.done: list[str] = []
        self.left: list[str] = []  # what an undoing could not bring back, in sentences
        self._records = Records(root)
        self._undo_command = undo
        self._record = Record(0, remedy, _now(), "open")

    @classmethod
    @contextmanager
    def begin(cls, root: host.Root, remedy: str, *, undo: str) -> Iterator["Changes"]:
        """Take the lock, undo what an earlier run left half done, and keep or undo what this one does.

        Raises `Missing` while another change is under way, or where no record can be kept.
        """
        changes = cls(root, remedy, undo=undo)
        with changes._records.locked():
            for record in interrupted(root):
                changes.done += changes._take_back(record)
            changes._record = msgspec.structs.replace(changes._record, number=changes._records.last_number() + 1)
            try:
                yield changes
            except BaseException as error:
                said = changes._take_back(changes._record) if changes._record.steps else []
                if isinstance(error, EjectableError) and said:
                    error.hint = " ".join([*([error.hint] if error.hint else []), "What was done was undone:", *said])
                raise
            changes._close()

    @property
    def folder(self) -> Path:
        """Where the records are, and what a remedy makes and keeps."""
        return self._records.folder

    # What can be done

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file of the machine; folders that are missing are made. Keeps the mode of a file that is there."""
        there, before, mode_before = self._look(path)
        if before == data:
            return
        made = tuple(str(folder) for folder in reversed(there.parents) if not folder.exists())
        step = FileStep(self._inside(there), before, data, mode_before, tuple(self._inside(Path(m)) for m in made))
        with self._step(step, path, _what(before), _what(data)):
            there.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(there, data, mode=mode if mode_before is None else mode_before)
        self.done.append(f"{'Wrote' if before is None else 'Changed'} {path}.")

    def adopt(self, path: str, data: bytes) -> None:
        """Write a file that earlier changes wrote, in their name: undoing them takes it away, and nothing else does."""
        there, before, mode = self._look(path)
        inside = self._inside(there)
        for record in self._records.all():
            steps = tuple(
                msgspec.structs.replace(step, after=data)
                if isinstance(step, FileStep) and step.path == inside and step.after == before
                else step
                for step in record.steps
            )
            if steps != record.steps:
                self._records.keep(msgspec.structs.replace(record, steps=steps))
        try:
            write_atomically(there, data, mode=0o644 if mode is None else mode)
        except OSError as error:
            raise Missing(f"{path} could not be changed: {error.strerror}.", hint="Is there room?") from error

    def remove(self, path: str) -> None:
        """Remove a file of the machine."""
        there, before, mode_before = self._look(path)
        if before is None:
            return
        with self._step(FileStep(self._inside(there), before, None, mode_before), path, _what(before), "no such file"):
            there.unlink()
        self.done.append(f"Removed {path}.")

    def set(self, path: str, value: str) -> None:
        """Write a value into a file of the kernel's (procfs, sysfs), in place."""
        there, before, _ = self._look(path)
        if before is None:
            raise Missing(f"{path} is not there.", hint="Is it mounted?")
        old = before.decode("utf-8", "replace").strip()
        if old == value:
            return
        with self._step(FileStep(self._inside(there), before, f"{value}\n".encode(), in_place=True), path, old, value):
            there.write_text(f"{value}\n", encoding="ascii")
        self.done.append(f"Set {path} from {old} to {value}.")

    def run(
        self,
        argv: Sequence[str],
        *,
        undo: Sequence[str],
        what: str,
        timeout_s: float,
        hint: str | None = None,
        while_there: str = "",
    ) -> Finished:
        """Run a program that changes something. `undo` takes it back, also when it failed half-way.

        `while_there` is a path of the machine: without it there is nothing to take back. Raises `Missing` with the
        program's last words where it fails.
        """
        with self.doing(argv, undo=undo, what=what, while_there=while_there):
            finished = run(argv, timeout_s=timeout_s, hint=hint)
            if not finished.ok:
                raise Missing(f"`{paste(argv)}` failed: {finished.last}", hint=hint)
        return finished

    @contextmanager
    def doing(self, argv: Sequence[str], *, undo: Sequence[str], what: str, while_there: str = "") -> Iterator[None]:
        """What the block does by itself and `argv` would do too: asking an API, say. `undo` takes it back."""
        with self._step(CommandStep(tuple(argv), tuple(undo), what, while_there), what, "not done", paste(argv)):
            yield
        self.done.append(f"{what[:1].upper()}{what[1:]}.")

    def undo(self, remedy: str, *, below: str | None = None) -> list[str]:
        """Take back the last change of `remedy` that is on record; says in sentences what was done.

        `below` asks for one that changed a file below this folder (from the root): a remedy may serve many trees.
        """
        for record in reversed(self._records.all()):
            paths = [step.path for step in record.steps if isinstance(step, FileStep)]
            if below is not None and not any(path.startswith(below.rstrip("/") + "/") for path in paths):
                continue
            if record.remedy == remedy and record.state == "done":
                return self._take_back(record)
        return []

    # How it is kept

    @contextmanager
    def _step(self, step: Step, what: str, before: str, after: str) -> Iterator[None]:
        self._record = msgspec.structs.replace(self._record, steps=(*self._record.steps, step))
        try:
            self._records.keep(self._record)
        except OSError as error:
            self._record = msgspec.structs.replace(self._record, steps=self._record.steps[:-1])
            raise Missing(f"The change could not be recorded: {error.strerror}.", hint="Make room for it.") from error
        try:
            yield
        except OSError as error:
            raise Missing(
                f"{what} could not be changed: {error.strerror}.", hint="Is there room, and a right to?"
            ) from error
        audit.record(
            str(self._records.folder),
            what=what,
            before=before,
            after=after,
            undo=self._undo_command,
            live=self.root.live,
        )

    def _close(self) -> None:
        if self._record.steps:
            self._records.keep(msgspec.structs.replace(self._record, state="done"))

    def _take_back(self, record: Record) -> list[str]:
        """Undo the steps of a record, last first; says in sentences what was done, and what was not (see `left`)."""
        said: list[str] = []
        stuck = False
        for step in reversed(record.steps):
            try:
                said.append(self._file_back(step) if isinstance(step, FileStep) else self._command_back(step))
            except (_Foreign, BadInput) as error:
                self.left.append(error.message)
            except EjectableError as error:
                self.left.append(error.message)
                stuck = True
        # What is stuck stays on record, for another try; on a full disk it stays too: again does no harm.
        with suppress(OSError):
            self._records.keep(record if stuck else msgspec.structs.replace(record, state="undone"))
        return [sentence for sentence in (*said, *self.left) if sentence]

    def _file_back(self, step: FileStep) -> str:
        there, now, _ = self._look(step.path)
        if self._inside(there) != step.path:
            raise _Foreign(f"{step.path} leads elsewhere by now, through a link: it was left as it is.")
        if now == step.before:
            self._drop(step.made_folders)
            return ""
        same = now == step.after or (step.in_place and now is not None and now.strip() == (step.after or b"").strip())
        if not same:
            raise _Foreign(f"{step.path} was changed by somebody else since: it was left as it is.")
        try:
            if step.in_place:
                there.write_bytes((step.before or b"").strip() + b"\n")
            elif step.before is None:
                there.unlink()
                self._drop(step.made_folders)
            else:
                write_atomically(there, step.before, mode=step.mode_before or 0o644)
        except OSError as error:
            raise Missing(f"{step.path} could not be restored: {error.strerror}.") from error
        self._told(step.path, _what(step.after), _what(step.before))
        return f"{step.path} is as it was before."

    def _drop(self, made: Sequence[str]) -> None:
        for folder in reversed(made):
            # Not empty: somebody else uses it by now. It may never have been made, or be a link by now.
            with suppress(OSError, BadInput):
                there = Path(self.root.outside(self._real(folder)))
                if self._inside(there) == folder:
                    there.rmdir()

    def _command_back(self, step: CommandStep) -> str:
        if not step.undo or (step.while_there and not self.root.exists(step.while_there)):
            return ""
        if step.undo[0] == "rmmod" and host.oopsed(self.root):
            # A thread that died may be in the middle of the module, or hold what unloading waits for.
            raise Missing(f"Not undone: {step.what}. This kernel has had an Oops: nothing is unloaded from it.")
        finished = run(step.undo, timeout_s=UNDO_TIMEOUT_S)
        if not finished.ok:
            raise Missing(f"Not undone: {step.what}. `{paste(step.undo)}` failed: {finished.last}")
        self._told(step.what, paste(step.argv), paste(step.undo))
        return f"Undone: {step.what}."

    def _told(self, what: str, before: str, after: str) -> None:
        folder = str(self._records.folder)
        audit.record(folder, what=f"undo {what}", before=before, after=after, undo="none", live=self.root.live)

    # Where it is

    def _look(self, path: str) -> tuple[Path, bytes | None, int | None]:
        """Where a path of the machine is for this process, what is there now, and its mode."""
        folder, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise BadInput("expected the path of a file", path=path)
        there = Path(self.root.outside(f"{self._real(folder)}/{name}"))
        if there.is_symlink():
            resolved = self.root.resolve(path)
            if resolved is None:
                raise BadInput("expected a file, found a link to nothing", path=path)
            there = Path(self.root.outside(resolved))
        content = _content(there)
        # Never more than rwx: a set-user-id bit is nothing that a change of ours brings back.
        return there, content, None if content is None else there.stat().st_mode & 0o777

    def _real(self, folder: str) -> str:
        """The folder without links, from the root; the part of it that is not there yet stays as it is."""
        missing: list[str] = []
        parts = [part for part in folder.split("/") if part]
        while parts:
            resolved = self.root.resolve("/" + "/".join(parts))
            if resolved is not None:
                real = resolved.rstrip("/")
                # A link that leads nowhere below the root would lead somewhere outside of it.
                if missing and Path(self.root.outside(f"{real}/{missing[-1]}")).is_symlink():
                    raise BadInput("expected a folder, found a link to nothing", path=f"{real}/{missing[-1]}")
                return "/".join([real, *reversed(missing)])
            missing.append(parts.pop())
        return "/" + "/".join(reversed(missing))

    def _inside(self, there: Path) -> str:
        return "/" + os.path.relpath(there, self.root.path)


class _Foreign(EjectableError):
    """Somebody else has changed since what is to be undone."""


def interrupted(root: host.Root) -> tuple[Record, ...]:
    """Changes that were begun and did not end, the last first. Without the lock, one may be under way right now."""
    return tuple(reversed([record for record in Records(root).all() if record.state == "open"]))


def _content(path: Path) -> bytes | None:
    """What a file holds; `None` where there is none. Raises `BadInput` for what is no small regular file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadInput("expected a regular file", path=str(path))
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise BadInput("a part of its path is no directory", path=str(path)) from error
    except PermissionError as error:
        raise Missing(f"{path} may not be read.", hint="Run it as root.") from error
    if len(data) > MAX_FILE:
        raise BadInput(f"larger than {MAX_FILE} bytes: not a file that would be changed", path=str(path))
    return data


def _what(content: bytes | None) -> str:
    if content is None:
        return "no such file"
    return f"{len(content)} bytes: {content.decode('utf-8', 'replace').strip()}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
