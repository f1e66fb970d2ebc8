# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts that were reached before, kept in the user's cache directory.

A verdict is found again only for the same tool, advisories and question, and only while every answer that it was
reached by is still the same (`ejectable.assess.recording`). Whatever is wrong with a kept verdict (cut off, changed,
owned by another user) makes it as if it were not there.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ejectable import __version__, host
from ejectable.assess.recording import Mark, holds
from ejectable.intake import write_atomically
from ejectable.model import KernelReport, Status

__all__ = ["Verdicts"]

MAX_SIZE = 1 << 20
MAX_KEPT = 512


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: tuple[str, ...]
    report: KernelReport
    marks: tuple[Mark, ...] = ()


class Verdicts:
    """The cache; with `enabled=False` (--no-cache) it finds nothing and keeps nothing."""

    def __init__(self, *, enabled: bool = True, folder: Path | None = None) -> None:
        self._folder = (folder or _default_folder()) if enabled else None

    def get(self, key: Sequence[str], root: host.Root | None = None) -> KernelReport | None:
        """The verdict kept under `key`, if nothing is wrong with it and `root` still answers as it did."""
        if self._folder is None:
            return None
        full = _full(key)
        try:
            descriptor = os.open(self._path(self._folder, full), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                about = os.fstat(file.fileno())
                # Nobody else may have put it there, or may change it.
                if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
                    return None
                kept = msgspec.json.decode(file.read(MAX_SIZE), type=_Kept)
        except (OSError, ValueError):  # msgspec's errors and a bad encoding are ValueErrors
            return None
        same = kept.key == full and (not kept.marks or (root is not None and holds(root, kept.marks)))
        return kept.report if same else None

    def put(self, key: Sequence[str], report: KernelReport, marks: Sequence[Mark] = ()) -> None:
        """Keep a verdict and what it was read from, unless it is `unknown`; failing to write is no error."""
        if self._folder is None or any(finding.status is Status.UNKNOWN for finding in report.findings):
            return
        full = _full(key)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = msgspec.json.encode(_Kept(full, report, tuple(marks)))
            if len(data) < MAX_SIZE:
                self._sweep(self._folder)
                write_atomically(self._path(self._folder, full), data, mode=0o600)
        except (OSError, ValueError):
            return

    @staticmethod
    def _path(folder: Path, key: tuple[str, ...]) -> Path:
        return folder / f"{hashlib.sha256(msgspec.json.encode(key)).hexdigest()}.json"

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Make room: a kernel upgrade leaves its verdict behind, and nobody would ever ask for it again."""
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) - MAX_KEPT + 1)]:
            path.unlink(missing_ok=True)


def _full(key: Sequence[str]) -> tuple[str, ...]:
    return (f"ejectable {__version__}", *(part.encode("utf-8", "backslashreplace").decode() for part in key))


def _default_folder() -> Path | None:
    """$XDG_CACHE_HOME/ejectable/verdicts (XDG Base Directory Specification 0.8); a relative value is to be ignored."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "ejectable" / "verdicts"
    try:
        return Path.home() / ".cache" / "ejectable" / "verdicts"
    except RuntimeError:  # no home at all
        return None
