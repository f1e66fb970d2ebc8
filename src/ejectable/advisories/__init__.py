# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect. A new defect is a new folder here, and nothing else.

A folder holds `facts.toml`, and modules that are imported when they are used: `probe` (kernel → finding), `exposure`
(finding and device → what unplugging it does), `signature` (event → recognised or not), `scenario` (for the lab). Its
`__init__` names it: `ADVISORY = Advisory("CVE-...", "title", package=__name__)`.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.facts import Facts
from ejectable.errors import WrongUsage

__all__ = ["Advisory", "Facts", "choose", "registry"]


@cache
def registry() -> Mapping[str, Advisory]:
    """Every advisory by its id, in the order of their folders' names."""
    folders = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    advisories = [importlib.import_module(f"{__name__}.{folder}").ADVISORY for folder in folders]
    return MappingProxyType({advisory.id: advisory for advisory in advisories})


def choose(wanted: Sequence[str]) -> Mapping[str, Advisory]:
    """The advisories of these names, by id; all of them where none is named. Raises `WrongUsage`.

    A name is an id or the beginning of a title, in any case.
    """
    if not wanted:
        return registry()
    return {advisory.id: advisory for name in wanted for advisory in (_named(name),)}


def _named(name: str) -> Advisory:
    by_id = {advisory.id.casefold(): advisory for advisory in registry().values()}
    begun = [advisory for advisory in registry().values() if advisory.title.casefold().startswith(name.casefold())]
    if found := by_id.get(name.casefold()):
        return found
    if name and len(begun) == 1:
        return begun[0]
    if name and begun:
        titles = "; ".join(f"{advisory.id}: {advisory.title}" for advisory in begun)
        raise WrongUsage(f"Several advisories are called {name!r}.", hint=f"Name one by its id: {titles}.")
    raise WrongUsage(f"There is no advisory {name!r}.", hint=f"There are: {', '.join(sorted(registry()))}.")
