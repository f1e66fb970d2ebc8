# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect. A new defect is a new folder here, and nothing else.

A folder holds `facts.toml`, and modules that are imported when they are used: `probe` (kernel → finding), `exposure`
(finding and device → what unplugging it does), `signature` (event → recognised or not), `scenario` (for the lab). Its
`__init__` names it: `ADVISORY = Advisory("CVE-...", "title", package=__name__)`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.facts import Facts

__all__ = ["Advisory", "Facts", "registry"]


@cache
def registry() -> Mapping[str, Advisory]:
    """Every advisory by its id, in the order of their folders' names."""
    folders = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    advisories = [importlib.import_module(f"{__name__}.{folder}").ADVISORY for folder in folders]
    return MappingProxyType({advisory.id: advisory for advisory in advisories})
