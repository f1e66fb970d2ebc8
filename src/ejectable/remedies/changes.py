# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes a machine so that it can always be undone: all of it or nothing, and every step on record.

    with Changes.begin(root, "panic-policy", undo="ejectable fix panic-policy --undo") as changes:
        changes.write("/etc/sysctl.d/90-ejectable.conf", text)
        with changes.step(RenewMenu()) as step:
            step.renew(root)

Whatever ends the block early (an error, Ctrl-C, SIGTERM) undoes what was done, last first. Whatever ends the process
(SIGKILL, a power cut) leaves an open record, from which the next `--apply` or `--undo` does the same.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from ejectable import host
from ejectable.errors import BadInput, EjectableError, Missing, OurFault
from ejectable.remedies import audit
from ejectable.remedies import machine_files as files
from ejectable.remedies.records import Record, Records, check_reach
from ejectable.remedies.registry import reach_of
from ejectable.remedies.steps import Altered, FileStep, RemoveFile, SetKernelValue, Step, System, WriteFile

__all__ = ["Changes", "interrupted"]

S = TypeVar("S", bound=Step)


class Changes:
    """The changes of one remedy on one machine; see the module's text. `done` says in sentences what was done."""

    def __init__(self, root: host.Root, remedy: str, *, undo: str) -> None:
        self.root = root
        self.done: list[str] = []
        self.left: list[str] = []  # what an undoing could not bring back, in sentences
        self._records = Records(root)
        self._reach = reach_of(remedy)
        self._undo_command = undo
        self._record = Record(2, 0, remedy, _now(), "open")

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
        found = files.look(self.root, path)
        if found.content == data:
            return
        made = files.missing_folders(self.root, found.real)
        step = WriteFile(path, found.real, found.content, data, found.mode, made)
        with self._keeping(step, _what(found.content), _what(data)):
            files.write(self.root, found.real, data, mode=mode if found.mode is None else found.mode)
        self.done.append(f"{'Wrote' if found.content is None else 'Changed'} {path}.")

    def adopt(self, path: str, data: bytes) -> None:
        """Write a file that earlier changes wrote, in their name: undoing them takes it away, and nothing else does."""
        found = files.look(self.root, path)
        for record in self._records.all():
            steps = tuple(
                msgspec.structs.replace(step, after=data)
                if isinstance(step, WriteFile) and step.real == found.real and step.after == found.content
                else step
                for step in record.steps
            )
            if steps != record.steps:
                self._records.keep(msgspec.structs.replace(record, steps=steps))
        try:
            files.write(self.root, found.real, data, mode=0o644 if found.mode is None else found.mode)
        except OSError as error:
            raise Missing(f"{path} could not be changed: {error.strerror}.", hint="Is there room?") from error

    def remove(self, path: str) -> None:
        """Remove a file of the machine."""
        found = files.look(self.root, path)
        if found.content is None:
            return
        step = RemoveFile(path, found.real, found.content, found.mode or 0o644)
        with self._keeping(step, _what(found.content), "no such file"):
            files.remove(self.root, found.real)
        self.done.append(f"Removed {path}.")

    def set(self, path: str, value: str) -> None:
        """Write a value below /proc/sys of the machine that runs, in place."""
        found = files.look(self.root, path)
        if found.content is None:
            raise Missing(f"{path} is not there.", hint="Is it mounted?")
        old = found.content.decode("utf-8", "replace").strip()
        if old == value:
            return
        with self._keeping(SetKernelValue(path, found.real, old, value), old, value):
            files.set_value(self.root, found.real, f"{value}\n".encode("ascii"))
        self.done.append(f"Set {path} from {old} to {value}.")

    @contextmanager
    def step(self, step: S) -> Iterator[S]:
        """What the block does to the machine that this runs on, by running programs or asking an API."""
        with self._keeping(step, "not done", "done"):
            yield step
        self.done.append(f"{step.what[:1].upper()}{step.what[1:]}.")

    def undo(self, remedy: str, *, below: str | None = None) -> list[str]:
        """Take back the last change of `remedy` that is on record; says in sentences what was done.

        `below` asks for one that changed a file below this folder (from the root): a remedy may serve many trees.
        Raises `Missing` where all there is was recorded by an earlier version, in a format that held commands.
        """
        for record in reversed(self._records.all()):
            paths = [step.real for step in record.steps if isinstance(step, FileStep)]
            if below is not None and not any(path.startswith(below.rstrip("/") + "/") for path in paths):
                continue
            if record.remedy == remedy and record.state == "done":
                return self._take_back(record)
        if old := self._records.outdated():
            raise Missing(
                f"{old[-1]} was recorded by an earlier version, which recorded commands: nothing of it is run.",
                hint="Take it back by hand, by what it says; then remove the file.",
            )
        return []

    # How it is kept

    @contextmanager
    def _keeping(self, step: Step, before: str, after: str) -> Iterator[None]:
        try:
            check_reach(step, self._reach, self.root)
        except ValueError as error:
            raise OurFault(f"{self._record.remedy}: {error}.") from error
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
                f"{step.what} could not be changed: {error.strerror}.", hint="Is there room, and a right to?"
            ) from error
        self._log(step.what, before, after, self._undo_command)

    def _close(self) -> None:
        if self._record.steps:
            self._records.keep(msgspec.structs.replace(self._record, state="done"))

    def _take_back(self, record: Record) -> list[str]:
        """Undo the steps of a record, last first; says in sentences what was done, and what was not (see `left`)."""
        said: list[str] = []
        stuck = False
        for step in reversed(record.steps):
            try:
                if sentence := step.undo(self.root):
                    said.append(sentence)
                    self._log(f"undo {step.what}", "done", "as before", "none")
            except (Altered, BadInput) as error:
                self.left.append(error.message)
            except EjectableError as error:
                not_undone = f"Not undone: {step.what}. " if isinstance(step, System) else ""
                self.left.append(f"{not_undone}{error.message}")
                stuck = True
        # What is stuck stays on record, for another try; on a full disk it stays too: again does no harm.
        with suppress(OSError):
            self._records.keep(record if stuck else msgspec.structs.replace(record, state="undone"))
        return [*said, *self.left]

    def _log(self, what: str, before: str, after: str, undo: str) -> None:
        folder = str(self._records.folder)
        audit.record(folder, what=what, before=before, after=after, undo=undo, live=self.root.live)


def interrupted(root: host.Root) -> tuple[Record, ...]:
    """Changes that were begun and did not end, the last first. Without the lock, one may be under way right now."""
    return tuple(reversed([record for record in Records(root).all() if record.state == "open"]))


def _what(content: bytes | None) -> str:
    if content is None:
        return "no such file"
    return f"{len(content)} bytes: {content.decode('utf-8', 'replace').strip()}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
