# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written about a kernel: its version and its package's changelog. They support or contradict, and no more."""

import re

from ejectable.advisories.facts import Facts
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["changelog", "version"]

RELEASE = re.compile(r"(\d{1,4})\.(\d{1,5})(?:\.(\d{1,5}))?")
# /proc/version_signature's part in Ubuntu's banner: "(Ubuntu 6.8.0-31.31-generic 6.8.1)".
UBUNTU = re.compile(r"\(Ubuntu (\d\S*?)-([a-z][\w.-]*) \d")
NUMBERS = re.compile(r"\d{1,9}")
# Vendors who take features and fixes into an old number: theirs says nothing.
BACKPORTS = re.compile(r"\.(?:el|fc|oe|an|al|lp|amzn|tl|uek|sles?)\w*|-default$|\.(?:alios|tlinux)", re.IGNORECASE)


def changelog(text: str | None, facts: Facts) -> Evidence | None:
    """Whether the package's changelog names the fix."""
    if not text:
        return None
    fixes = [commit for commit in facts.commits if commit.role.startswith("fixed")]
    for word in [facts.id, *(commit.subject for commit in fixes), *(c.id[:12] for c in fixes if c.id)]:
        if word in text:
            return Evidence(EvidenceKind.CHANGELOG, Status.FIXED, f"the package's changelog names {word!r}")
    introduced = facts.commit("introduced")
    if introduced and introduced.subject in text:
        detail = f"the package's changelog names {introduced.subject!r}, and no fix of it"
        return Evidence(EvidenceKind.CHANGELOG, Status.UNKNOWN, detail)
    return None


def version(release: str | None, banner: str | None, facts: Facts) -> Evidence | None:
    """What the number alone would mean."""
    ubuntu = UBUNTU.search(banner or "")
    if ubuntu:
        found = _ubuntu(ubuntu[1], ubuntu[2], facts)
        if found:
            return found
    match = RELEASE.match(release or "")
    if match is None or release is None or BACKPORTS.search(release):
        return None
    number = tuple(int(part or 0) for part in match.groups())
    for known in (r for r in facts.releases if r.branch):
        if number[:2] == _numbers(known.branch or ""):
            if known.fixed and number >= _three(known.fixed):
                return _says(Status.FIXED, f"{release}: {known.branch}.y has the fix since {known.fixed}")
            if number < _three(known.introduced):
                return _says(
                    Status.NOT_AFFECTED, f"{release}: {known.branch}.y has the defect since {known.introduced}"
                )
            return _says(Status.AFFECTED, f"{release}: upstream has the defect there")
    mainline = next((r for r in facts.releases if r.branch is None), None)
    if mainline is None:
        return None
    if number < _three(mainline.introduced):
        return _says(Status.NOT_AFFECTED, f"{release}: upstream introduced it in {mainline.introduced}")
    if mainline.fixed and number >= _three(mainline.fixed):
        return _says(Status.FIXED, f"{release}: upstream fixed it in {mainline.fixed}")
    return _says(Status.AFFECTED, f"{release}: upstream has the defect there")


def _ubuntu(package_version: str, flavour: str, facts: Facts) -> Evidence | None:
    """By Ubuntu's own table, for the source package that builds this flavour."""
    base = "linux" if flavour.startswith("generic") else f"linux-{flavour.partition('-')[0]}"
    backport = "~" in package_version
    for package in facts.packages:
        of_flavour = package.package == base and not backport
        of_backport = backport and package.package in (f"{base}-6.8", f"{base}-hwe-6.8")
        if package.distribution != "ubuntu" or not package.fixed or not (of_flavour or of_backport):
            continue
        if _numbers(package_version)[:3] != _numbers(package.fixed)[:3]:
            continue
        safe = _numbers(package_version.partition("~")[0]) >= _numbers(package.fixed.partition("~")[0])
        says = Status.FIXED if safe else Status.AFFECTED
        return _says(says, f"Ubuntu's {package.package} {package_version}: fixed in {package.fixed}")
    return None


def _says(status: Status, detail: str) -> Evidence:
    return Evidence(EvidenceKind.VERSION, status, detail)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, NUMBERS.findall(text)))


def _three(text: str) -> tuple[int, ...]:
    return (*_numbers(text), 0, 0)[:3]
