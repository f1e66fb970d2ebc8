# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable explain`: every word that the tool says can be asked for, and every fact of an advisory is told."""

import json
import os
import shlex
import subprocess
import sys
import typing

import jsonschema
import pytest

from ejectable.advisories import registry
from ejectable.cli.app import run
from ejectable.errors import WrongUsage
from ejectable.model import Device, EvidenceKind, Remedy, Run, Status, Trigger
from ejectable.remedies import REMEDIES
from ejectable.report import document
from ejectable.report.topics import all_topics, find, plain

TOPICS = all_topics(registry())
NAMES = [topic.name for topic in TOPICS]
# What issue and article speak of.
TERMS = [
    "virtio device",
    "legacy",
    "transitional",
    "modern",
    "admin virtqueue",
    "virtio_pci_device",
    "virtio_pci_modern_probe",
    "is_avq",
    "RIP",
    "Oops",
    "panic_on_oops",
    "kdump",
    "hot-unplug",
    "ACPI eject",
    "build-id",
    "BTF",
    "kallsyms",
    "exit codes",
]


def words_of(struct: type, field: str) -> tuple[str, ...]:
    return typing.get_args(typing.get_type_hints(struct)[field])


SAID = [
    *TERMS,
    *Status,
    *EvidenceKind,
    *REMEDIES,
    *words_of(Device, "mode"),
    *words_of(Device, "unplug"),
    *words_of(Remedy, "state"),
    *words_of(Run, "result"),
    *typing.get_args(Trigger),
    *("pci-unbind", "virtio-unbind", "shpc"),
    *("0", "2", "3", "64", "65", "69", "70"),
    *registry(),
]


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["explain", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("word", SAID)
def test_every_word_that_the_tool_says_has_an_entry(word: str) -> None:
    topic = find(word, TOPICS)
    assert plain(word) in {plain(name) for name in (topic.name, *topic.aliases)}


@pytest.mark.parametrize("topic", TOPICS, ids=NAMES)
def test_an_entry_is_short_and_plain_and_leads_on(topic: object) -> None:
    from ejectable.advisories.terms import Topic

    assert isinstance(topic, Topic)
    assert 30 <= len(topic.text) <= 620
    assert topic.text.endswith((".", '."'))
    assert "\n" not in topic.brief
    assert not topic.brief.endswith(".")
    for name in topic.related:
        assert find(name, TOPICS).name != topic.name
    if topic.group != "advisories":
        assert topic.see, "how to see it on this machine"


def test_no_two_entries_answer_to_one_name() -> None:
    names = [plain(name) for topic in TOPICS for name in {plain(n): n for n in (topic.name, *topic.aliases)}.values()]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


CHANGING = {"rm", "mv", "cp", "tee", "sed", "dd", "insmod", "modprobe", "apt-get", "reboot", "kill"}


@pytest.mark.parametrize("command", sorted({command for topic in TOPICS for command in topic.see}))
def test_a_command_to_see_it_can_be_pasted_and_changes_nothing(command: str) -> None:
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    words = shlex.split(command, comments=True)
    assert not CHANGING & set(words)
    assert "--apply" not in words
    assert ">" not in [word[:1] for word in words]


def test_the_list_has_one_line_for_each_topic_that_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys).splitlines()
    assert max(map(len, lines)) <= 80
    for topic in TOPICS:
        (line,) = (line for line in lines if line.startswith(f"  {topic.name} "))
        said = line.removeprefix(f"  {topic.name}").strip()
        # The title of a defect may be longer than a line: it is cut at a word, and said to be.
        assert said == topic.brief or topic.brief.startswith(said.removesuffix(" ...")), topic.name


@pytest.mark.parametrize("spelling", ["admin virtqueue", "ADMIN-VIRTQUEUE", "admin_virtqueue", "  Admin   Virtqueue "])
def test_capitals_and_joints_do_not_matter(capsys: pytest.CaptureFixture[str], spelling: str) -> None:
    assert explain(capsys, spelling) == explain(capsys, "admin", "virtqueue")


def test_a_term_says_what_it_is_and_how_to_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = explain(capsys, "is-avq")
    assert said.startswith("is_avq  ")
    assert "stays NULL" in said
    assert "See it on this machine:\n    bpftool btf dump" in said
    assert "See also: " in said
    assert explain(capsys, "vp_del_vqs()") == explain(capsys, "vp_del_vqs")
    assert explain(capsys, "is_avq", "--quiet").count("\n") == 1


def test_an_advisory_tells_the_whole_story(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(explain(capsys, "cve-2024-42134").split())
    facts = registry()["CVE-2024-42134"].facts
    for commit in facts.commits:
        assert commit.subject in said
        assert commit.id is None or commit.id in said
    for package in facts.packages:
        assert f"{package.package} " in said
        assert package.fixed is None or f"fixed in {package.fixed}" in said
        assert package.source in said
    for look_alike in facts.look_alikes:
        assert look_alike.id in said
        assert look_alike.title in said
    assert all(reference.url in said for reference in facts.references)
    assert all(f" {name} " in said for name in REMEDIES)
    for chapter in ("Cause", "What happens", "What is concerned", "What sets it off", "Commits", "Distributions"):
        assert chapter in said


@pytest.mark.parametrize("arguments", [(), ("CVE-2024-42134",), ("is_avq",), ("unknown",), ("69",)])
def test_the_document_is_of_its_schema(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    answer = json.loads(explain(capsys, *arguments, "--format", "json"))
    schema = json.loads(document.schema("explain"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(answer, schema, format_checker=jsonschema.FormatChecker())
    assert answer["status"] == "unknown", "explaining says nothing of any machine"
    assert (answer["topic"] is None) == (not arguments)
    assert (answer["advisory"] is None) == (arguments != ("CVE-2024-42134",))
    assert [one["name"] for one in answer["topics"]] == ([] if arguments else NAMES)


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("virtqueu", "virtqueue"),
        ("lagacy", "legacy"),
        ("source-pach", "source-patch"),
        ("CVE-2024-4213", "CVE-2024-42134"),
    ],
)
def test_an_unknown_topic_names_the_nearest_ones(capsys: pytest.CaptureFixture[str], wanted: str, near: str) -> None:
    assert run(["explain", wanted]) == 64
    captured = capsys.readouterr()
    assert not captured.out
    assert f"There is no topic {wanted!r}." in captured.err
    assert near in captured.err


@pytest.mark.parametrize("wanted", ["", "   ", "-", "x" * 5000, "\x1b[31m", "\ud800"])
def test_any_topic_at_all_is_answered_in_a_sentence(capsys: pytest.CaptureFixture[str], wanted: str) -> None:
    assert run(["explain", "--", wanted]) == 64
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert len(said) < 400
    with pytest.raises(WrongUsage):
        find(wanted, TOPICS)


def test_another_advisory_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--advisory", "CVE-1999-0001"]) == 64
    assert "CVE-2024-42134" in capsys.readouterr().err


def test_the_shell_completes_topics() -> None:
    def complete(line: str, at: int) -> list[str]:
        environment = {**os.environ, "_EJECTABLE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
        command = [sys.executable, "-m", "ejectable"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert complete("ejectable explain admin", 2) == ["admin-virtqueue"]
    assert "CVE-2024-42134" in complete("ejectable explain CVE", 2)
    assert set(complete("ejectable explain exit", 2)) >= {"exit-codes", "exit-code-69"}
