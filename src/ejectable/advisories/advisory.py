# SPDX-License-Identifier: GPL-2.0-or-later
"""One known defect, as the rest of the house sees it: nothing of its folder is imported before it is used."""

import importlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ejectable.advisories.facts import Facts, load_facts
from ejectable.advisories.terms import Terms, load_terms
from ejectable.confine import data_of
from ejectable.model import Device, Finding

if TYPE_CHECKING:
    from ejectable.kernel.kernel import Kernel

__all__ = ["Advisory"]


class Advisory:
    """`id` as the world knows it; `title` in one line; `package` is the folder's."""

    def __init__(self, id: str, title: str, *, package: str) -> None:  # noqa: A002  (the advisory's id is its name)
        self.id = id
        self.title = title
        self._package = package

    def __repr__(self) -> str:
        return f"<Advisory {self.id}: {self.title}>"

    @cached_property
    def facts(self) -> Facts:
        """Commits, versions, fixed packages, references, look-alikes; each with its source."""
        return load_facts(self._package)

    @cached_property
    def terms(self) -> Terms:
        """The defect's story and its terms, in words."""
        return load_terms(data_of(self._package, "terms.toml"))

    def probe(self, kernel: "Kernel") -> Finding:
        """What this defect's evidence says of one kernel. Does not raise for a kernel that is damaged: it says so."""
        found: Finding = self.part("probe").probe(kernel)
        return found

    def expose(self, finding: Finding, device: Device) -> Device:
        """The device with `unplug` and `reason` filled in, for a kernel of which `finding` is true."""
        exposed: Device = self.part("exposure").expose(finding, device)
        return exposed

    def part(self, name: str) -> Any:
        """A module of the folder: "signature", "scenario"; `ImportError` where the folder has none."""
        return importlib.import_module(f"{self._package}.{name}")
