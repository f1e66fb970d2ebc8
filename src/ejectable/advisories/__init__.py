# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect. A new defect is a new folder here, and nothing else.

A folder holds `facts.toml` and a class with the parts that `advisory.Advisory` declares; its `__init__` makes the one
object of it, `ADVISORY`. What is heavy in it is imported when it is used.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Meeting, Reach, always, meets, race, spared, unsure
from ejectable.advisories.facts import Facts
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Signature

__all__ = [
    "Advisory",
    "CodeUnder",
    "Facts",
    "Meeting",
    "Reach",
    "Scenario",
    "Signature",
    "Workaround",
    "always",
    "meets",
    "race",
    "registry",
    "spared",
    "unsure",
]


@cache
def registry() -> Mapping[str, Advisory]:
    """Every advisory by its id, in the order of their folders' names."""
    folders = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    advisories = [importlib.import_module(f"{__name__}.{folder}").ADVISORY for folder in folders]
    return MappingProxyType({advisory.id: advisory for advisory in advisories})
