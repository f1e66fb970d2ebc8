# SPDX-License-Identifier: GPL-2.0-or-later
"""The first kernels that do not have a defect any more, for whoever runs a given release: from the facts alone."""

import re

from ejectable.advisories.facts import Facts, FixedPackage

__all__ = ["first_good"]

MOST = 3  # packages that are named
FLAVOUR = re.compile(r"\A\d{1,3}\.\d{1,3}\.\d{1,5}-\d{1,5}-([a-z]{2,20})")  # 6.8.0-31-generic: Ubuntu's form
PROXMOX = re.compile(r"-pve\Z")
SERIES = re.compile(r"\A(\d{1,3}\.\d{1,3})\b")


def first_good(facts: Facts, release: str | None) -> str | None:
    """Where the defect is repaired, as a sentence; the packages of the release's own series first. `None`: unknown."""
    upstream = list(dict.fromkeys(one.fixed for one in facts.releases if one.fixed))
    packages = [f"{one.distribution.capitalize()} {_name(one)} {one.fixed}" for one in _packages(facts, release)]
    never = [one.branch for one in facts.releases if one.branch and not one.fixed]
    if not upstream and not packages:
        return None
    fix = facts.commit("fixed")
    text = "Fixed"
    if packages:
        text += f" in {', '.join(packages[:MOST])}" + ("; upstream" if upstream else "")
    if upstream:
        text += f" in {' and '.join(upstream)}"
    if fix is not None and fix.id:
        text += f" by {fix.id[:12]} ({fix.subject})"
    series = SERIES.match(release or "")
    if series and series.group(1) in never:
        text += f"; upstream's {series.group(1)} series never got it"
    return f"{text}."


def _packages(facts: Facts, release: str | None) -> list[FixedPackage]:
    """The packages that a release may come from, by its series and flavour."""
    series = SERIES.match(release or "")
    if series is None:
        return []
    fixed = [one for one in facts.packages if one.fixed and one.fixed.startswith(f"{series.group(1)}.")]
    if PROXMOX.search(release or ""):
        return [one for one in fixed if one.distribution == "proxmox"]
    flavour = FLAVOUR.match(release or "")
    if flavour is None:
        return []
    name = "linux" if flavour.group(1) in ("generic", "lowlatency", "virtual") else f"linux-{flavour.group(1)}"
    return [one for one in fixed if re.fullmatch(rf"{re.escape(name)}(?:-hwe)?(?:-\d+\.\d+)?", one.package)]


def _name(package: FixedPackage) -> str:
    return f"{package.release} {package.package}" if package.release else package.package
