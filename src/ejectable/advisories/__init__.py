# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect. A new defect is a new folder here, and nothing else.

A folder holds `facts.toml` and a class with the parts that `advisory.Advisory` declares; its `__init__` makes the one
object of it, `ADVISORY`. What is heavy in it is imported when it is used.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

from ejectable.advisories import outside
from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Meeting, Reach, always, meets, race, spared, unsure
from ejectable.advisories.facts import Facts
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Signature
from ejectable.errors import BadInput, WrongUsage
from ejectable.kernel.containers.archive import keep_modules

__all__ = [
    "Advisory",
    "CodeUnder",
    "Facts",
    "Meeting",
    "Reach",
    "Scenario",
    "Signature",
    "Workaround",
    "add_folders",
    "added_folders",
    "always",
    "choose",
    "meets",
    "places_of",
    "race",
    "registry",
    "spared",
    "unsure",
]


_folders: list[str] = []  # beside what is installed: --advisories


def add_folders(folders: Iterable[str]) -> None:
    """Take the advisories in these folders as well, from here on. Raises `BadInput` for one that cannot be had."""
    _folders.extend(folder for folder in folders if folder not in _folders)
    try:
        registry()
    except Exception:  # whatever it was: nothing of it stays
        _folders.clear()
        raise


def added_folders() -> tuple[str, ...]:
    """The folders that were added: another process has to add them too."""
    return tuple(_folders)


def registry() -> Mapping[str, Advisory]:
    """Every advisory by its id: this package's in the order of their folders' names, then those from outside.

    Raises `BadInput` where one from outside cannot be loaded, or has the id or name of another.
    """
    return _known(tuple(_folders))


@cache
def _known(folders: tuple[str, ...]) -> Mapping[str, Advisory]:
    own = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    found = [importlib.import_module(f"{__name__}.{folder}").ADVISORY for folder in own]
    found += outside.installed()
    found += (advisory for folder in folders for advisory in outside.from_folder(folder))
    known: dict[str, Advisory] = {}
    for advisory in found:
        if known.setdefault(advisory.id, advisory) is not advisory:
            raise BadInput(f"Two advisories have the id {advisory.id}: {known[advisory.id].package} has one.",
                           path=advisory.package)  # fmt: skip
    keep_modules(places_of(known.values()))
    return MappingProxyType(known)


def places_of(advisories: Iterable[Advisory]) -> dict[str, str]:
    """The modules that judging these advisories may ask for, with their usual folders below lib/modules/RELEASE."""
    found: dict[str, str] = {}
    for advisory in advisories:
        for name, folder in advisory.places.items():
            found[name] = folder or found.get(name, "")
    return found


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
