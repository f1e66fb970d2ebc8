# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect. A new defect is a new folder here, and nothing else.

A folder holds `facts.toml` and a class with the parts that `advisory.Advisory` declares; its `__init__` makes the one
object of it, `ADVISORY`. What is heavy in it is imported when it is used.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Meeting, Reach, always, meets, race, spared, unsure
from ejectable.advisories.facts import Facts
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Signature
from ejectable.errors import WrongUsage

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
    "choose",
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


def choose(wanted: Sequence[str]) -> Mapping[str, Advisory]:
    """The advisories of these names, by id; all that are proven where none is named. Raises `WrongUsage`.

    A name is an id, a short name or the beginning of a title, in any case; "all" names every one.
    """
    if not wanted:
        return {name: advisory for name, advisory in registry().items() if advisory.proven}
    if "all" in wanted:
        return registry()
    return {advisory.id: advisory for name in wanted for advisory in (_named(name),)}


def _named(name: str) -> Advisory:
    by_name = {one.casefold(): advisory for advisory in registry().values() for one in advisory.names}
    begun = [advisory for advisory in registry().values() if advisory.title.casefold().startswith(name.casefold())]
    if found := by_name.get(name.casefold()):
        return found
    if name and len(begun) == 1:
        return begun[0]
    if name and begun:
        titles = "; ".join(f"{advisory.id}: {advisory.title}" for advisory in begun)
        raise WrongUsage(f"Several advisories are called {name!r}.", hint=f"Name one by its id: {titles}.")
    raise WrongUsage(f"There is no advisory {name!r}.", hint=f"There are: {', '.join(sorted(registry()))}.")
