# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge of the corpus: what counts as wrong, and that nothing unreadable passes as right."""

from pathlib import Path

import pytest

from corpus.judge import Judgement, Said, judge, main, summary
from corpus.list import Entry, entries, items


def entry(path: Path, expected: str = "not_affected") -> Entry:
    return Entry(
        name="a",
        path=path,
        expected=expected,  # type: ignore[arg-type]  # the test says the wrong thing on purpose
        arch="amd64",
        compiler="gcc-12",
        opt="O2",
        btf=True,
        retpoline=True,
        virtio_pci="builtin",
        form="bzImage",
        compression="gzip",
        notes="",
    )


def test_a_file_that_is_no_kernel_is_an_error_and_so_wrong(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"nothing of the kind\n" * 100)
    judgement = judge(entry(path))
    assert judgement.verdict in {"error", "unknown"}
    assert not judgement.right
    assert judgement.said.reason


@pytest.mark.parametrize(
    ("expected", "verdict", "right", "wrong"),
    [
        ("affected", "affected", True, False),
        ("affected", "unknown", False, False),
        ("affected", "fixed", False, True),
        ("affected", "not_affected", False, True),
        ("fixed", "affected", False, True),
        ("fixed", "not_affected", False, True),
        ("not_affected", "error", False, True),
    ],
)
def test_only_unknown_is_neither_right_nor_wrong(expected: str, verdict: str, right: bool, wrong: bool) -> None:
    judgement = Judgement(entry(Path("x"), expected), Said(verdict, (), "", 0.0))
    assert (judgement.right, judgement.wrong) == (right, wrong)
    assert ("1 wrong" in summary([judgement])) == wrong


def test_the_list_names_each_kernel_once_and_is_long_enough() -> None:
    names = [item.name for item in items()]
    assert len(names) == len(set(names))
    assert len(names) >= 260


def test_what_cannot_be_had_is_reported_and_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EJECTABLE_CORPUS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get, no make
    chosen = [item for item in items() if item.name.startswith("module-")][:1]
    ((name, why),) = entries(chosen)  # type: ignore[misc]  # a pair, because the module cannot be built
    assert name.startswith("module-")
    assert why
    assert main(["--only", name]) == 1


def test_a_journal_answers_for_a_file_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"nothing of the kind\n" * 100)
    journal = tmp_path / "journal"
    first = judge(entry(path), journal)
    kept = journal.read_bytes()
    assert judge(entry(path), journal) == first
    assert journal.read_bytes() == kept
    path.write_bytes(b"another\n" * 100)
    judge(entry(path), journal)
    assert len(journal.read_bytes()) > len(kept)
