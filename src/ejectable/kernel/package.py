# SPDX-License-Identifier: GPL-2.0-or-later
"""The package that a kernel came in: name, version, and what its changelog says."""

import re
from collections.abc import Callable, Iterable
from functools import cached_property

from ejectable.intake import Input, Limits, decompress
from ejectable.kernel.containers import deb, rpm
from ejectable.kernel.containers.archive import Archive

__all__ = ["Package", "from_deb", "from_rpm"]

CHANGELOG = re.compile(r"usr/share/doc/[^/]+/changelog(?:\.Debian)?(?:\.gz|\.xz|\.zst)?")
MOST_CHANGELOG = 64 << 20


# How distributions split a kernel: Debian and Ubuntu put its release into the names of all its packages, RPM
# distributions put what is in a package behind the name of the kernel's flavour.
DEB_NAME = re.compile(
    r"linux-(?:image|binary|modules|signed-image)(?:-(?:unsigned|uc|extra|core))*-(\d.*?)(?:-unsigned|-dbg|-dbgsym)?"
)
RPM_PART = re.compile(r"-(?:core|modules(?:-\w+)*|extra|optional|base|debuginfo|uki-\w+)$")
DEPENDENCY = re.compile(r"(?:linux-(?:image|binary|modules)|kernel)(?:-[\w.+~-]+)?")


class Package:
    """A package by `name`, `version` and `arch`; its changelog is read when it is asked for.

    `kernel` is the same text for packages that one kernel was split into, `None` for what is no part of a kernel by
    its name. `needs` names the kernel packages that it depends on.
    """

    def __init__(  # noqa: PLR0917  (a record of what is written on a package)
        self,
        name: str,
        version: str,
        changelog: Callable[[], str | None],
        arch: str = "",
        kernel: str | None = None,
        needs: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.arch = arch
        self.kernel = kernel
        self.needs = needs
        self._changelog = changelog

    def __repr__(self) -> str:
        return f"<Package {self.name} {self.version}>"

    @cached_property
    def changelog(self) -> str | None:
        """The text of the changelog, newest entry first; `None` where there is none.

        Debian packages have it at their end, so the whole package is unpacked for it. Raises `DamagedInput`.
        """
        return self._changelog()


def from_deb(source: Input, archive: Archive, limits: Limits) -> Package:
    """The package whose files are `archive`."""
    fields = deb.control_fields(source, limits)

    def changelog() -> str | None:
        texts = []
        for member in archive.find_all(CHANGELOG):
            text = decompress(archive.read(member), MOST_CHANGELOG, name=f"{source.name}({member})")
            texts.append(text.decode("utf-8", "replace"))
            if member.rpartition("/")[2].startswith("changelog.Debian"):
                return texts[-1]
        return texts[0] if texts else None

    name, version, arch = (fields.get(key, "") for key in ("Package", "Version", "Architecture"))
    kernel = DEB_NAME.fullmatch(name)
    needs = re.split(r"[,|]", f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}")
    return Package(
        name, version, changelog, arch,
        kernel=f"deb {kernel[1]} {version} {arch}" if kernel else None,
        needs=_kernels(word.partition("(")[0] for word in needs),
    )  # fmt: skip


def from_rpm(source: Input) -> Package:
    """The package as its header describes it."""
    header = rpm.read_header(source)
    flavour = RPM_PART.sub("", header.name)
    return Package(
        header.name, header.version, lambda: header.changelog, header.arch,
        kernel=f"rpm {flavour} {header.version} {header.arch}" if flavour.startswith("kernel") else None,
        needs=_kernels(header.requires),
    )  # fmt: skip


def _kernels(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some packages' names that are kernels' packages, each once."""
    return tuple(dict.fromkeys(name for raw in names if DEPENDENCY.fullmatch(name := raw.strip())))
