# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kernel that is cached against every advisory: what is said, and what is true.

    python -m corpus.advisories_matrix                     writes docs/advisories-matrix.md; 1 where a word is wrong
    python -m corpus.advisories_matrix 6.12 --print        only kernels with this in their names, to the terminal

What is true comes from `advisory_truth.toml` and the changelogs of Debian's packages, or from the edit that a driver
was built with. An advisory without an entry there is asked, and counts as not judged.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.builds import built
from corpus.driver_modules import DRIVER_MODULES

__all__ = ["Row", "Truth", "expected", "rows", "table", "truths"]

SOURCES = ("6.1", "6.12")  # families whose source package, and so whose changelog, is there
TARGET = Path("docs/advisories-matrix.md")
LETTERS = {"affected": "**A**", "fixed": "F", "not_affected": "-", "unknown": "?"}
HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-or-later -->
# Kernels against advisories

Made by `python -m corpus.advisories_matrix`; do not edit. **A** affected, F fixed, - not affected, ? unknown, `!` not
what is true; an empty cell was not asked, a word in parentheses has nothing to be held against. What is true comes from
upstream's releases and the changelogs of Debian's packages (`corpus/advisory_truth.toml`), or from the edit that a
driver was built with.
"""


class Truth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides which of Debian's kernels has a defect."""

    id: str
    driver: str
    since: str | None = None
    fixed: str | None = None
    gone: str | None = None
    subject: str | None = None
    stable: Mapping[str, str] = {}


class Row(msgspec.Struct, frozen=True):
    """One kernel: what is true of it, and which advisories are asked; `None` means all."""

    name: str
    path: Path
    true: Mapping[str, str]
    asked: frozenset[str] | None = None


def truths() -> dict[str, Truth]:
    """The entries of advisory_truth.toml, by advisory."""
    text = Path(__file__).with_name("advisory_truth.toml").read_bytes()
    return {one.id: one for one in msgspec.toml.decode(text, type=dict[str, list[Truth]])["truth"]}


def rows() -> Iterator[Row]:
    """The cached packages of Debian's kernels, the built drivers, and the stock kernels with a built virtio_pci."""
    for deb in sorted((cache_folder() / "debs").glob("linux-image-*.deb")):
        name, version, _ = deb.name.split("_")
        true = {id_: word for id_, truth in truths().items() if (word := expected(truth, version))}
        yield Row(f"{name.removeprefix('linux-image-')} {version}", deb, true)
    for module in DRIVER_MODULES:
        if (built() / module.name / "manifest.json").exists():
            yield Row(module.name, module.path(), module.edited.truth, frozenset(module.edited.truth))
    by_driver = {id_: truth for id_, truth in truths().items() if truth.driver == "virtio_pci"}
    for root in sorted((cache_folder() / "roots").glob("module-*")):
        family = "6.12" if root.name.startswith("module-6.12") else "6.1"
        edited = {id_: truth for id_, truth in by_driver.items() if id_ != "CVE-2024-42134"}  # that is what was edited
        true = {id_: word for id_, truth in edited.items() if (word := expected(truth, _source_version(family)))}
        yield Row(f"{root.name}+kernel", root, true, frozenset(edited))


def expected(truth: Truth, version: str) -> str | None:
    """What is true of Debian's kernel of this package version; `None` where nothing here says it."""
    number = _numbers(version)
    if truth.since and number[:2] < _numbers(truth.since):
        return "not_affected"
    if truth.gone and number[:2] >= _numbers(truth.gone):
        return "not_affected"
    if truth.fixed and number[:2] >= _numbers(truth.fixed):
        return "fixed"
    family = ".".join(map(str, number[:2]))
    if family in truth.stable:
        first = truth.stable[family]
        return "fixed" if first and number >= _numbers(first) else "affected"
    if truth.subject is None or family not in SOURCES:
        return None
    brought = _brought(family, truth.subject)
    return "fixed" if brought is not None and number >= _numbers(brought) else "affected"


@cache
def _brought(family: str, subject: str) -> str | None:
    """The first version of Debian's linux whose changelog names this change; `None` if none does."""
    version = found = None
    for line in _changelog(family).splitlines():
        if match := re.match(r"linux \((\S+)\)", line):
            version = match[1]
        if subject in line:
            found = version  # the oldest that names it stands last
    return found


@cache
def _changelog(family: str) -> str:
    """The changelog of Debian's source package, kept: to take it out, all of the package is unpacked."""
    package = f"linux-source-{family}"
    deb = fetch(package)
    kept = cache_folder() / "changelogs" / deb.stem
    if kept.exists():
        return kept.read_text(encoding="utf-8", errors="replace")
    inside = f"./usr/share/doc/{package}/changelog.Debian.gz"
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as outer:
        packed = subprocess.run(["tar", "xO", inside], stdin=outer.stdout, capture_output=True, check=True)
    text = subprocess.run(["gzip", "-dc"], input=packed.stdout, capture_output=True, check=True).stdout
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(text)
    return text.decode("utf-8", "replace")


def _source_version(family: str) -> str:
    return fetch(f"linux-source-{family}").name.split("_")[1]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text.partition("~")[0])))


def judged(row: Row, ids: list[str]) -> dict[str, tuple[str, str]]:
    """What each advisory says of the kernel, with its reason."""
    from ejectable.assess.kernels import judge_path
    from ejectable.intake import DEFAULT_LIMITS

    asked = [id_ for id_ in ids if row.asked is None or id_ in row.asked]
    answer = judge_path(str(row.path), asked, DEFAULT_LIMITS)
    findings = [finding for kernel in answer.kernels for finding in kernel.findings]
    return {finding.advisory: (finding.status.value, finding.reason) for finding in findings}


def table(lines: list[tuple[Row, dict[str, tuple[str, str]]]], ids: list[str]) -> tuple[str, int]:
    """The document, and how many words in it are wrong."""
    text = [HEAD, f"| kernel | {' | '.join(ids)} |", f"|---{'|---' * len(ids)}|"]
    wrong, open_, known, unjudged = [], [], 0, 0
    for row, said in lines:
        cells = []
        for id_ in ids:
            word, reason = said.get(id_, ("", ""))
            true = row.true.get(id_)
            cell = LETTERS.get(word, "")
            if word and true is None:
                unjudged, cell = unjudged + 1, f"({cell})"
            elif word:
                known += 1
                if word == "unknown":
                    open_.append(f"{row.name}, {id_}: {reason}")
                elif word != true:
                    wrong.append(f"{row.name}, {id_}: {word} instead of {true}: {reason}")
                    cell += " `!`"
            cells.append(cell)
        text.append(f"| {row.name} | {' | '.join(cells)} |")
    count = f"{len(lines)} kernels, {known} words held against what is true: {len(wrong)} wrong, {len(open_)} unknown."
    text += ["", f"{count} {unjudged} more are not held against anything.", ""]
    text += [f"- wrong: {one}" for one in wrong] + [f"- unknown: {one}" for one in open_]
    return "\n".join(text).rstrip() + "\n", len(wrong)


def main() -> int:
    """Judge, write, and say how it went."""
    from ejectable.advisories import registry

    parser = argparse.ArgumentParser(description="Every cached kernel against every advisory.")
    parser.add_argument("part", nargs="*", help="only kernels with one of these in their names")
    parser.add_argument("--print", action="store_true", help="to the terminal, and not into docs/")
    given = parser.parse_args()
    ids = sorted(registry())
    lines: list[tuple[Row, dict[str, tuple[str, str]]]] = []
    text, wrong = table(lines, ids)
    for row in rows():
        if given.part and not any(part in row.name for part in given.part):
            continue
        begun = time.monotonic()
        said = judged(row, ids)
        lines.append((row, said))
        print(f"{row.name}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
        text, wrong = table(lines, ids)
        if not given.print:
            TARGET.write_text(text, encoding="utf-8")  # after each: it takes long, and may be broken off
    if given.print:
        print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
