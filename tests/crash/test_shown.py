# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person is shown: the answer first, the trace with notes, what follows for the machine, what to do now."""

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import Reading, judge
from ejectable.crash.code import disassemble
from ejectable.crash.logs import read_bytes
from ejectable.crash.taint import words
from ejectable.report.crash import as_document, as_text, next_steps
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

BY_NAME = {path.stem: path for path in FIXTURES}


def _reading(log: bytes) -> Reading:
    events = read_bytes(log, "console.log").events
    return Reading(("console.log",), tuple(events), tuple(judge(event, choose(())) for event in events))


def _text(name: str, **options: bool) -> str:
    reading = _reading(load(BY_NAME[name]).log)
    return "\n".join(as_text(reading, colour=False, width=100, **options))


def test_the_first_line_is_the_answer() -> None:
    assert _text("defect-disk-acpi-eject-printk").startswith("AFFECTED: This is CVE-2024-42134 (certain)")
    assert _text("healthy-serial").startswith("HEALTHY: No crash in the log.")
    assert _text("near-vp-reset").startswith(
        "NOT THIS DEFECT: Not a known unplug defect; one event: it is CVE-2024-53092"
    )
    assert _text("defect-cut-at-head").startswith("UNKNOWN: It cannot be told")


def test_it_fits_on_a_screen() -> None:
    for name in ("defect-disk-acpi-eject-printk", "kasan-uaf", "two-events", "hung-rtnl"):
        lines = _text(name).splitlines()
        assert len(lines) <= 48
        assert max(map(len, lines)) <= 100


def test_the_trace_says_who_is_to_blame_and_who_asked_for_it() -> None:
    text = _text("defect-disk-acpi-eject-printk")
    assert "0x0  <- nothing is there: a function pointer was never set" in text
    assert "+0x21d/0x2d0  <- to blame" in text
    assert "<- the platform asked to eject it" in text
    assert "disk vdb (virtio1) at 0000:00:05.0, driven as a legacy device" in text


def test_a_fault_within_a_function_is_marked_where_the_processor_was() -> None:
    (marked,) = [line for line in _text("near-vp-reset").splitlines() if "to blame" in line]
    assert marked.startswith("  vp_reset+")


@pytest.mark.parametrize(
    ("name", "words_of_it"),
    [
        ("defect-disk-acpi-eject-printk", "The kernel panicked"),
        ("near-vp-reset", "Further hotplug, and whatever waits for those locks, hangs"),
        ("gpf-6.11", "went on without the thread that crashed"),
        ("kasan-uaf", "data may be damaged already"),
        ("hung-rtnl", "What waits, waits still"),
        ("warning", "The kernel went on."),
    ],
)
def test_what_follows_for_the_machine_depends_on_what_happened(name: str, words_of_it: str) -> None:
    assert words_of_it in " ".join(_text(name).split())


def test_all_shows_registers_code_and_every_event() -> None:
    short, long = _text("two-events"), _text("two-events", everything=True)
    assert short.count("\nTitle ") == 1
    assert long.count("\nTitle ") == len(_reading(load(BY_NAME["two-events"]).log).events) > 1
    assert "Registers" in long


def test_nothing_in_a_log_reaches_the_terminal_or_a_command() -> None:
    log = load(BY_NAME["defect-disk-acpi-eject-printk"]).log
    evil = log.replace(b"6.8.0-31-generic", b"6.8.0;reboot").replace(b"Comm: kworker/0:2", b"Comm: \x1b]0;x\x9b31mk")
    reading = _reading(evil)
    text = "\n".join([*as_text(reading, colour=False, width=80, everything=True), *next_steps(reading)])
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "vmlinuz-6.8.0;" not in text
    assert "ejectable kernel /boot/vmlinuz-$(uname -r)" in text


def test_the_command_to_paste_names_the_kernel_that_crashed() -> None:
    steps = next_steps(_reading(load(BY_NAME["defect-disk-acpi-eject-printk"]).log))
    assert any("ejectable kernel /boot/vmlinuz-6.8.0-31-generic" in step for step in steps)


def test_the_document_has_an_event_for_each_and_the_status() -> None:
    document = as_document(_reading(load(BY_NAME["defect-disk-acpi-eject-printk"]).log))
    assert document.status == "affected"
    assert [event.advisory for event in document.events] == ["CVE-2024-42134", None]
    assert document.events[1].follows == document.events[0].line


@pytest.mark.parametrize(
    ("arch", "code", "trapping"),
    [
        ("x86_64", "48 89 e5 41 54 53 48 8b <48> 8b 40 08 48 89 c7", "mov rax, qword ptr [rax + 8]"),
        ("x86_64", "Bad RIP value.", None),
        ("i386", "55 89 e5 <8b> 40 08 5d c3", "mov eax, dword ptr [eax + 8]"),
        ("aarch64", "a90efbfd d2800441 (f9400d01)", "ldr x1, [x8, #0x18]"),
        ("arm", "ea000005 e59d302c (e5823000)", "str r3, [r2]"),
        ("riscv64", "00000013 <00053503>", "ld a0, 0(a0)"),
        ("ppc64le", "60000000 <e9230000> 60000000", "ld r9, 0(r3)"),
        ("s390x", "b90400c2 <e3102000 0004>", "lg %r1, 0(%r2)"),
    ],
)
def test_the_trapping_instruction_is_disassembled(arch: str, code: str, trapping: str | None) -> None:
    found = [one.text for one in disassemble(code, arch) if one.trapping]
    assert found == ([] if trapping is None else [trapping])


def test_taint_is_told_in_words() -> None:
    assert words("G") == ()
    assert words("G    B   W  O ") == (
        "a bad page was found",
        "a warning was issued before",
        "a module from outside the kernel tree was loaded",
    )
