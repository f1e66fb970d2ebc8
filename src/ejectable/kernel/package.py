# SPDX-License-Identifier: GPL-2.0-or-later
"""The package that a kernel came in: name, version, and what its changelog says."""

import re
from collections.abc import Callable
from functools import cached_property

from ejectable.intake import Limits, decompress
from ejectable.kernel.containers import deb, rpm
from ejectable.kernel.containers.archive import Archive

__all__ = ["Package", "from_deb", "from_rpm"]

CHANGELOG = re.compile(r"usr/share/doc/[^/]+/changelog(?:\.Debian)?(?:\.gz|\.xz|\.zst)?")
MOST_CHANGELOG = 64 << 20


class Package:
    """A package by `name` and `version`; its changelog is read when it is asked for."""

    def __init__(self, name: str, version: str, changelog: Callable[[], str | None]) -> None:
        self.name = name
        self.version = version
        self._changelog = changelog

    def __repr__(self) -> str:
        return f"<Package {self.name} {self.version}>"

    @cached_property
    def changelog(self) -> str | None:
        """The text of the changelog, newest entry first; `None` where there is none.

        Debian packages have it at their end, so the whole package is unpacked for it. Raises `DamagedInput`.
        """
        return self._changelog()


def from_deb(path: str, archive: Archive, limits: Limits) -> Package:
    """The package whose files are `archive`."""
    fields = deb.control_fields(path, limits)

    def changelog() -> str | None:
        texts = []
        for member in archive.find_all(CHANGELOG):
            text = decompress(archive.read(member), MOST_CHANGELOG, name=f"{path}({member})")
            texts.append(text.decode("utf-8", "replace"))
            if member.rpartition("/")[2].startswith("changelog.Debian"):
                return texts[-1]
        return texts[0] if texts else None

    return Package(fields.get("Package", ""), fields.get("Version", ""), changelog)


def from_rpm(path: str) -> Package:
    """The package as its header describes it."""
    header = rpm.read_header(path)
    return Package(header.name, header.version, lambda: header.changelog)
