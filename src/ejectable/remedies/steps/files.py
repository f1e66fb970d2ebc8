# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that change a file of the machine: written, removed, or a value of the kernel's that was set."""

from typing import TYPE_CHECKING

from ejectable.errors import EjectableError, Missing
from ejectable.remedies import machine_files as files
from ejectable.remedies.steps.base import Altered, Step

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["FileStep", "RemoveFile", "SetKernelValue", "WriteFile"]

MAX_MODE = 0o777


class FileStep(Step, frozen=True):
    """A file that was changed. Contents are bytes (base64 in a record); `None` is "no such file"."""

    path: str  # from the root, as it was asked for
    real: str  # the same without links, as it was then

    @property
    def what(self) -> str:
        """The file."""
        return self.path

    def __post_init__(self) -> None:
        _plain(self.path, self.real)

    def _now(self, root: "host.Root") -> files.Found:
        found = files.look(root, self.path)
        if found.real != self.real:
            raise Altered(f"{self.path} leads elsewhere by now, through a link: it was left as it is.")
        return found

    def _altered(self) -> Altered:
        return Altered(f"{self.path} was changed by somebody else since: it was left as it is.")

    def _failed(self, error: OSError) -> EjectableError:
        return Missing(f"{self.path} could not be restored: {error.strerror}.")


class WriteFile(FileStep, frozen=True, tag="write"):
    """A file that was written, or written anew; `folders` were made for it, the outermost first."""

    before: bytes | None
    after: bytes
    mode_before: int | None = None
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _plain(*self.folders)
        _rwx(self.mode_before)
        if not all(self.real.startswith(f"{folder}/") for folder in self.folders):
            raise ValueError("a folder that the file is not in was not made for it")

    def undo(self, root: "host.Root") -> str:
        """Bring back what was there, or remove the file and the folders that were made for it."""
        now = self._now(root).content
        if now not in (self.before, self.after):
            raise self._altered()
        try:
            if self.before is not None and now != self.before:
                files.write(root, self.real, self.before, mode=self.mode_before or 0o644)
            elif self.before is None and now is not None:
                files.remove(root, self.real)
        except OSError as error:
            raise self._failed(error) from error
        if self.before is None:
            files.drop_folders(root, self.folders)
        return "" if now == self.before else f"{self.path} is as it was before."


class RemoveFile(FileStep, frozen=True, tag="remove"):
    """A file that was removed."""

    before: bytes
    mode_before: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _rwx(self.mode_before)

    def undo(self, root: "host.Root") -> str:
        """Write it again."""
        now = self._now(root).content
        if now == self.before:
            return ""
        if now is not None:
            raise self._altered()
        try:
            files.write(root, self.real, self.before, mode=self.mode_before)
        except OSError as error:
            raise self._failed(error) from error
        return f"{self.path} is as it was before."


class SetKernelValue(FileStep, frozen=True, tag="set"):
    """A value below /proc/sys that was set in the running kernel."""

    before: str
    after: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/proc/sys/") or "\n" in f"{self.before}{self.after}":
            raise ValueError("only values below /proc/sys are set")

    def undo(self, root: "host.Root") -> str:
        """Set it as it was."""
        now = (self._now(root).content or b"").decode("utf-8", "replace").strip()
        if now == self.before:
            return ""
        if now != self.after:
            raise self._altered()
        try:
            files.set_value(root, self.real, f"{self.before}\n".encode())
        except OSError as error:
            raise self._failed(error) from error
        return f"{self.path} is as it was before."


def _plain(*paths: str) -> None:
    for path in paths:
        parts = path.split("/")
        if parts[0] or "\0" in path or len(parts) < 2 or not all(part not in ("", ".", "..") for part in parts[1:]):
            raise ValueError(f"{path!r} is no path below the root")


def _rwx(mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= MAX_MODE:
        raise ValueError(f"{mode:o} is no mode that is given to a file")
