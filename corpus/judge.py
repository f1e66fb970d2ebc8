# SPDX-License-Identifier: GPL-2.0-or-later
"""`make corpus`: has ejectable judge every kernel of the corpus, and compares with what is true of it.

    python -m corpus.judge [--quick] [--only WORD] [--there] [--resume] [--kept] [--write] [--jobs N]

Exit code 0 when no verdict is wrong, at most one in a hundred is `unknown` (each with its doubt), at least 260
kernels were judged and none is missing; 1 otherwise. `--write` renews docs/corpus.md.
"""

import argparse
import collections
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

import ejectable
from corpus.archive import cache_folder
from corpus.list import QUICK, Entry, entries, is_there, items

__all__ = ["Judgement", "judge", "main"]

ADVISORY = "CVE-2024-42134"
EXIT_CODES = {"affected": 2, "unknown": 3, "fixed": 0, "not_affected": 0, "mitigated": 0}
UNKNOWN_AT_MOST = 0.01
AT_LEAST = 260
OTHERS = """
## Advisories against kernels

`python -m corpus.advisories_matrix` asks every advisory about every cached kernel and writes
`docs/advisories-matrix.md`; it ends with 1 where a word is wrong. What is true stands in
`corpus/advisory_truth.toml` (upstream's releases, and the subject of the fix, which is looked for in the changelogs of
Debian's packages). `corpus/driver_modules.py` builds single drivers with a defect put in, for those that no kernel on
offer has. An advisory with `proven = False` is asked only by name, or with `--advisory all`.
"""
TABLE = Path(__file__).parents[1] / "docs" / "corpus.md"


class Said(msgspec.Struct, frozen=True):
    """What ejectable said of one file."""

    verdict: str  # a status word, or "error"
    kinds: tuple[str, ...]  # of the evidence, in its order
    reason: str
    seconds: float
    doubts: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """A kernel of the corpus, and what ejectable said of it."""

    entry: Entry
    said: Said

    @property
    def verdict(self) -> str:
        """A status word, or "error"."""
        return self.said.verdict

    @property
    def right(self) -> bool:
        """The verdict is the truth."""
        return self.verdict == self.entry.expected

    @property
    def wrong(self) -> bool:
        """Neither the truth nor an honest `unknown`."""
        return not self.right and self.verdict != "unknown"


def judge(entry: Entry, journal: Path | None = None) -> Judgement:
    """Run `ejectable kernel` on one kernel, as a person would; with a journal, unless it is in there.

    A journal belongs to the very code that it was written with (`journal_of_this_code`); what it holds of a file goes
    by name, size and time.
    """
    if journal is None:
        return Judgement(entry, _ask(entry))
    said = _kept(entry, journal)
    if said is None:
        said = _ask(entry)
        with journal.open("ab") as file:
            file.write(msgspec.json.encode((_key(entry), said)) + b"\n")
    return Judgement(entry, said)


def _key(entry: Entry) -> str:
    facts = entry.path.stat()
    return f"{entry.name} {facts.st_size} {facts.st_mtime_ns}"


def _kept(entry: Entry, journal: Path) -> Said | None:
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return dict(msgspec.json.decode(line, type=tuple[str, Said]) for line in lines).get(_key(entry))


def journal_of_this_code() -> Path:
    """The file in the cache that keeps what ejectable's code, as it is now, said of kernels."""
    folder = Path(ejectable.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".py", ".toml"}:
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    kept = cache_folder() / "judgements"
    kept.mkdir(exist_ok=True)
    return kept / f"{digest.hexdigest()[:16]}.jsonl"


def _ask(entry: Entry) -> Said:
    started = time.monotonic()
    command = [sys.executable, "-m", "ejectable", "kernel", "--format", "json", "--no-cache", "--advisory", ADVISORY]
    done = subprocess.run(
        [*command, entry.path],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    seconds = time.monotonic() - started
    try:
        document = json.loads(done.stdout)
        findings = [
            finding
            for kernel in document["kernels"]
            for finding in kernel["findings"]
            if finding["advisory"] == ADVISORY
        ]
        verdict = document["status"]
        doubts = [
            f"{doubt['kind']} ({doubt['where']}): {doubt['detail']}"
            for finding in findings
            for doubt in finding["doubts"]
        ]
    except (ValueError, KeyError, TypeError):
        return Said("error", (), (done.stderr.strip().splitlines() or ["no output"])[0], seconds)
    if done.returncode != EXIT_CODES.get(verdict):
        return Said("error", (), f"exit code {done.returncode} with status {verdict}", seconds)
    kinds = tuple(dict.fromkeys(evidence["kind"] for finding in findings for evidence in finding["evidence"]))
    reason = "; ".join(dict.fromkeys(finding["reason"] for finding in findings))
    return Said(verdict, kinds, reason, seconds, tuple(dict.fromkeys(doubts)))


COLUMNS = (
    "kernel", "form", "arch", "compiler", "opt", "BTF", "retpoline", "virtio_pci", "expected", "verdict",
    "evidence", "s",
)  # fmt: skip


def row(judgement: Judgement) -> tuple[str, ...]:
    """One line of the table."""
    entry = judgement.entry
    form = f"{entry.form} {entry.compression}" if entry.compression not in {"", "none"} else entry.form
    return (
        entry.name,
        form,
        entry.arch,
        entry.compiler,
        entry.opt,
        _yes(entry, entry.btf),
        _yes(entry, entry.retpoline and entry.arch == "amd64"),
        entry.virtio_pci,
        entry.expected,
        judgement.verdict if judgement.right else f"**{judgement.verdict}**",
        ", ".join(judgement.said.kinds),
        f"{judgement.said.seconds:.1f}",
    )


def _yes(entry: Entry, flag: bool) -> str:
    return "" if entry.form == "source" else "yes" if flag else "no"


def summary(judgements: Sequence[Judgement]) -> str:
    """What it adds up to, in a sentence or two."""
    counts = collections.Counter(
        "wrong" if one.wrong else "unknown" if not one.right else "right" for one in judgements
    )
    words = collections.Counter(one.verdict for one in judgements)
    expected = collections.Counter(one.entry.expected for one in judgements)
    times = sorted(one.said.seconds for one in judgements) or [0.0]
    return (
        f"{len(judgements)} kernels: {counts['right']} right, {counts['unknown']} unknown, {counts['wrong']} wrong. "
        f"Expected: {', '.join(f'{count} {word}' for word, count in sorted(expected.items()))}. "
        f"Said: {', '.join(f'{count} {word}' for word, count in sorted(words.items()))}. "
        f"Median {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s."
    )


def markdown(judgements: Sequence[Judgement], left_out: Sequence[str] = ()) -> str:
    """The table as docs/corpus.md holds it; `left_out` are the names of what was not judged."""
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
        "# The corpus",
        "",
        "Written by `make corpus ARGS=--write`. Debian's kernels come from its archive, from Debian 11 to experimental",
        "(`corpus/debian_kernels.txt`); the built ones are made from its kernel sources with the callback put back",
        "(`corpus/patches.py` lists the variants). What is expected comes from how a kernel was made, never from",
        "ejectable. Times are of the whole process, on a machine with other work to do. Kernels that hide the defect",
        "have tests of their own (`corpus/traps.py`).",
        "",
        "Debian's own kernels for amd64 have IBT and call depth tracking from 6.12 on; hw-tags has no code of its own",
        "beyond its headers'. No kernel here has 64K pages. KASAN, SW_TAGS, KMSAN, KCSAN, gcov, kcov, randstruct and",
        "LTO are judged as modules. What is listed but was not judged stands at the end.",
        "",
        summary(judgements),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row(one)) + " |" for one in judgements),
    ]
    if left_out:
        lines += ["", "## Not judged", "", "Not built, or not asked about, when this was written:", ""]
        lines += [f"- {name}" for name in left_out]
    strange = [one for one in judgements if not one.right]
    if strange:
        lines += [
            "",
            "## Not as expected",
            "",
            *(
                f"- {one.entry.name}: {one.verdict}: {one.said.reason}. Doubts: {'; '.join(one.said.doubts) or 'none'}"
                for one in strange
            ),
        ]
    return "\n".join(lines) + "\n" + OTHERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, print, and say by the exit code whether all is as it should be."""
    parser = argparse.ArgumentParser(prog="corpus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what `make test` judges")
    parser.add_argument("--only", metavar="WORD", help="only kernels whose name holds WORD")
    parser.add_argument("--there", action="store_true", help="only what was downloaded or built before")
    parser.add_argument("--resume", action="store_true", help="ask again only what this very code did not answer yet")
    parser.add_argument(
        "--kept", action="store_true", help="ask nothing: only what --resume has kept of this very code"
    )
    parser.add_argument("--write", action="store_true", help="renew docs/corpus.md")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time (default 2)")
    options = parser.parse_args(arguments)
    chosen = [item for item in (QUICK if options.quick else items()) if not options.only or options.only in item.name]
    everything = [item.name for item in chosen]
    if options.there:
        chosen = [item for item in chosen if is_there(item)]
    whole = not (options.quick or options.only)
    journal = journal_of_this_code() if options.resume or options.kept else None
    judgements: list[Judgement] = []
    missing: list[tuple[str, str]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        running = []
        for one in entries(chosen):
            if isinstance(one, Entry):
                if options.kept and journal is not None and _kept(one, journal) is None:
                    continue
                running.append(pool.submit(judge, one, journal))
            else:
                missing.append(one)
                print(f"MISSING {one[0]}: {one[1]}", file=sys.stderr, flush=True)
        for future in running:
            judgement = future.result()
            judgements.append(judgement)
            mark = " " if judgement.right else "?" if not judgement.wrong else "!"
            print(mark, "  ".join(row(judgement)), flush=True)
            if not judgement.right:
                print(f"    {judgement.said.reason}; {'; '.join(judgement.said.doubts)}", flush=True)
    print(summary(judgements))
    if options.write:
        judged = {one.entry.name for one in judgements}
        TABLE.write_text(markdown(judgements, [name for name in everything if name not in judged]))
        print(f"written: {TABLE.name}")
    unknown = sum(1 for one in judgements if one.verdict == "unknown")
    builds = sum(1 for one in judgements if one.entry.form != "source")
    good = (
        not any(one.wrong for one in judgements)
        and all(one.said.doubts for one in judgements if one.verdict == "unknown")
        and not missing
        and (not whole or (unknown <= UNKNOWN_AT_MOST * len(judgements) and builds >= AT_LEAST))
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
