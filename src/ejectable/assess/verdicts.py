# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts that were reached before, kept in the user's cache directory.

A verdict is found again only for the same tool, advisories and question, and only while every answer that it was
reached by is still the same (`Root.recording`). Whatever is wrong with a kept verdict (cut off, changed,
owned by another user) makes it as if it were not there.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ejectable import __version__
from ejectable.errors import EjectableError
from ejectable.intake import Directory, Root, Seen, cache_folder
from ejectable.model import KernelReport, Status

__all__ = ["Kept", "Verdicts"]

MAX_SIZE = 1 << 20
MAX_KEPT = 512
KEPT = re.compile(r"[0-9a-f]{64}\.json")


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the cache: what was asked, what was read for it, and what came out."""

    key: tuple[str, ...]
    report: KernelReport
    seen: tuple[Seen, ...] = ()


class Verdicts:
    """The cache; with `enabled=False` (--no-cache) it finds nothing and keeps nothing."""

    def __init__(self, *, enabled: bool = True, folder: Path | None = None) -> None:
        self._folder = (folder or _default_folder()) if enabled else None

    def get(self, key: Sequence[str], root: Root | None = None) -> KernelReport | None:
        """The verdict kept under `key`, if nothing is wrong with it and `root` still answers as it did."""
        if self._folder is None:
            return None
        full = _full(key)
        try:
            with Directory.ours(*self._place(self._folder)) as folder, folder.open_file(_name(full)) as file:
                about = os.fstat(file.fileno())
                # Nobody else may have put it there, or may change it.
                if about.st_uid != os.geteuid() or about.st_mode & 0o022:
                    return None
                kept = msgspec.json.decode(file.read(MAX_SIZE), type=Kept)
        except (OSError, EjectableError, ValueError):  # msgspec's errors and a bad encoding are ValueErrors
            return None
        same = kept.key == full and (not kept.seen or (root is not None and root.unchanged(kept.seen)))
        return kept.report if same else None

    def put(self, key: Sequence[str], report: KernelReport, seen: Sequence[Seen] = ()) -> None:
        """Keep a verdict and what it was read from, unless it is `unknown`; failing to write is no error."""
        if self._folder is None or any(finding.status is Status.UNKNOWN for finding in report.findings):
            return
        full = _full(key)
        try:
            data = msgspec.json.encode(Kept(full, report, tuple(seen)))
            if len(data) >= MAX_SIZE:
                return
            Directory.make(self._folder.parent.parent).close()
            with Directory.ours(*self._place(self._folder), make=True) as folder:
                # A kernel upgrade leaves its verdict behind, and nobody would ever ask for it again.
                folder.sweep(KEPT, keep=MAX_KEPT - 1)
                folder.sweep_leftovers()
                folder.write(_name(full), data, mode=0o600, lasting=False)
        except (OSError, EjectableError, ValueError):
            return

    @staticmethod
    def _place(folder: Path) -> tuple[str, str, str]:
        """The folder that links may lead to, and the two below it that are ours alone."""
        return str(folder.parent.parent), folder.parent.name, folder.name


def _name(key: tuple[str, ...]) -> str:
    return f"{hashlib.sha256(msgspec.json.encode(key)).hexdigest()}.json"


def _full(key: Sequence[str]) -> tuple[str, ...]:
    return (f"ejectable {__version__}", *(part.encode("utf-8", "backslashreplace").decode() for part in key))


def _default_folder() -> Path | None:
    try:
        return cache_folder() / "ejectable" / "verdicts"
    except RuntimeError:  # no home at all
        return None
