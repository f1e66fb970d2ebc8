# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a guest or QEMU does, a run ends within its limits, with a word that is true and nothing left running."""

import asyncio
import errno
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.assess.proof import status_of
from ejectable.errors import Missing
from ejectable.lab.accelerator import Accelerator
from ejectable.lab.case import Case
from ejectable.lab.evidence import Evidence
from ejectable.lab.experiment import Experiment, Limits, Outcome
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.modules import ModuleSet
from ejectable.lab.qmp import Qmp
from ejectable.lab.session import Done, Session
from ejectable.model import Status
from ejectable.report.text import clean

Behave = Callable[[str], None]
FAKE = Path(__file__).with_name("fake_qemu.py")
SHORT = Limits(boot=4, silence=2, device=4, unplug=4, heartbeat=2, use=2, cycle=30)
KERNEL = GuestKernel("vmlinuz", "x86_64", b"kernel", ModuleSet())
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the lab runs on Linux")


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Put a QEMU of a certain behaviour in the way of the real one."""

    def put(behaviour: str) -> None:
        program = tmp_path / "qemu-system-x86_64"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {behaviour} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def run(*, repeat: int = 1) -> Outcome:
    started = time.monotonic()
    outcome = asyncio.run(Experiment(KERNEL, Case("pc"), busybox=b"", limits=SHORT, repeat=repeat).run())
    assert time.monotonic() - started < 60
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert not children.exists() or not children.read_text().strip()
    return outcome


@pytest.mark.parametrize(
    ("behaviour", "result", "words"),
    [
        ("good", "survived", "a new one was plugged and used"),
        ("chatters", "survived", "a new one was plugged and used"),
        ("hangs", "hang", "no longer answers"),
        ("oopses", "oops", "the guest still answers"),
        ("oopses-and-stops", "oops", "the guest no longer answers"),
        ("oopses-elsewhere", "crashed-otherwise", "nothing in the report ties that to the removal"),
        ("oopses-unknown", "crashed-otherwise", "in the removal's path but with no advisory's signature"),
        ("oopses-in-use", "crashed-otherwise", "while the device was used"),
        ("oopses-when-plugged", "crashed-otherwise", "while a device was plugged"),
        ("sysrq-beside", "crashed-otherwise", "nothing in the report ties that to the removal"),
        ("harmless", "survived", "a new one was plugged and used"),
        ("oopses-at-boot", "no-boot", "before user space was reached"),
        ("guest-error", "no-unplug", "DEVICE_UNPLUG_GUEST_ERROR"),
        ("keeps-device", "no-unplug", "still answers"),
        ("ignores", "no-unplug", "still answers"),
        ("dies-on-unplug", "no-unplug", "QEMU ended with status 1: it broke"),
        ("silent", "no-boot", "nothing came from its console"),
        ("floods", "no-boot", "user space was not reached"),
        ("mute-qmp", "no-boot", "never answered"),
        ("never-reads", "no-unplug", "no longer answers"),
        (
            "panics-at-boot",
            "no-boot",
            "not syncing: VFS: Unable to mount root fs | [    0.900000] ---[ end Kernel panic",
        ),
    ],
)
def test_a_run_ends_with_the_right_word(behave: Behave, behaviour: str, result: str, words: str) -> None:
    behave(behaviour)
    outcome = run()
    assert (outcome.result, words in outcome.detail) == (result, True), outcome.detail


LIES = [
    *("data", "list", "name", "deep", "bytes", "long", "number", "reply", "many"),
    *("release", "marks", "answers", "words"),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_guest_that_lies_over_qmp_or_console_is_blamed_and_never_believed(behave: Behave, lie: str) -> None:
    """A QEMU that its guest took over may say anything: the run ends, with a word that is no crash nobody saw."""
    behave(f"lies-{lie}")
    outcome = run()
    assert outcome.result in ("survived", "no-boot", "no-unplug", "hang"), outcome.detail
    assert not outcome.events, "no crash is made of what is no report"
    assert not outcome.release or outcome.release.isprintable() or clean(outcome.release).isprintable()


@pytest.mark.parametrize(
    "lie", [b'["event"]', b'{"event": 1}', b'{"event": "E", "data": [1]}', b'{"event": "E", "data": "x"}', b'"event"']
)
def test_what_is_no_event_is_never_waited_for(lie: bytes) -> None:
    """A true event that comes behind it is found; the answer does not rest on which of the two came first."""
    channel = Qmp(started=0)
    channel.note("<-", lie)
    channel.note("<-", b'{"event": "E", "data": {"device": "d"}}')
    found = asyncio.run(channel.event("E", when=lambda data: data.get("device") == "d"))
    assert found["data"] == {"device": "d"}


def test_a_guest_that_was_slow_to_boot_is_given_more_time_for_the_rest() -> None:
    assert Limits().after(2.5) == Limits()
    assert Limits(heartbeat=10).after(12).heartbeat == 30
    assert Limits(heartbeat=10).after(1000).heartbeat == 60


@pytest.mark.parametrize(("behaviour", "alive"), [("oopses", True), ("oopses-and-stops", False)])
def test_an_oops_is_known_within_a_second_of_its_last_line(behave: Behave, behaviour: str, alive: bool) -> None:
    behave(behaviour)
    stages: list[tuple[str, float]] = []
    experiment = Experiment(
        KERNEL, Case("pc"), busybox=b"", limits=SHORT, tell=lambda stage: stages.append((stage, time.monotonic()))
    )
    outcome = asyncio.run(experiment.run())
    times = dict(stages)
    assert times["a crash"] - times["acpi-eject"] < 1
    assert [(event.kind, event.function, event.trigger) for event in outcome.events] == [
        ("null-call", "vp_del_vqs", "acpi-eject")
    ]
    assert outcome.alive is alive


def test_a_heartbeat_that_is_answered_in_the_moment_of_the_crash_ends_with_it(behave: Behave) -> None:
    behave("oopses-with-a-pong")
    patient = Limits(boot=4, silence=2, device=4, unplug=200, heartbeat=30, use=2, cycle=300)
    started = time.monotonic()
    outcome = asyncio.run(Experiment(KERNEL, Case("pc"), busybox=b"", limits=patient).run())
    assert (outcome.result, outcome.alive, time.monotonic() - started < 20) == ("oops", True, True)


def test_a_hang_is_noticed_by_the_heartbeat_not_by_the_longest_limit(behave: Behave) -> None:
    behave("hangs")
    patient = Limits(boot=4, silence=2, device=4, unplug=200, heartbeat=1, use=2, cycle=300)
    started = time.monotonic()
    outcome = asyncio.run(Experiment(KERNEL, Case("pc"), busybox=b"", limits=patient).run())
    assert (outcome.result, time.monotonic() - started < 20) == ("hang", True)


def test_no_room_for_the_kernel_is_told_and_leaves_nothing_open(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave("good")
    before = len(list(Path("/proc/self/fd").iterdir()))

    def full(name: str, flags: int) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(Missing, match="could not be put into memory: Cannot allocate memory"):
        asyncio.run(session(Accelerator("tcg", "as asked for")).run([Case("pc"), Case("pc", device="rng")]))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_flood_costs_no_memory(behave: Behave) -> None:
    behave("floods")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10  # KiB


def test_many_runs_in_a_row_leak_no_descriptor(behave: Behave) -> None:
    behave("good")
    run()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert run(repeat=3).cycles == 3
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def session(accelerator: Accelerator, evidence: Path | None = None) -> Session:
    kept = None if evidence is None else Evidence(evidence)
    return Session(kernel=KERNEL, busybox=b"", accelerator=accelerator, limits=SHORT, evidence=kept)


def one(evidence: Path | None = None) -> Done:
    (done,) = asyncio.run(session(Accelerator("tcg", "as asked for"), evidence).run([Case("pc")]))
    return done


def test_a_death_that_says_nothing_is_tried_again_with_a_control_and_every_transcript_is_kept(
    behave: Behave, tmp_path: Path
) -> None:
    behave("sysrq-beside")
    run = one(tmp_path / "kept").run
    assert (run.result, run.attempts, run.control, run.advisory) == ("crashed-otherwise", 2, "survived", None)
    assert [(event.kind, event.phase, event.fatal, event.removal) for event in run.events] == [
        ("panic", "trigger", True, False)
    ]
    assert "a control run without the unplug ended in survived" in run.detail
    kept = {path.name for path in (tmp_path / "kept").rglob("*.log")}
    assert kept == {f"{part}{name}.log" for part in ("", "first-attempt-", "control-") for name in ("console", "qmp")}


def test_a_death_in_the_removal_of_no_known_kind_is_not_tried_again(behave: Behave) -> None:
    behave("oopses-unknown")
    run = one().run
    assert (run.result, run.attempts, run.control, run.advisory) == ("crashed-otherwise", 1, "survived", None)
    assert (run.events[0].removal, run.events[0].trace[:2]) == (True, ("kfree", "virtblk_remove"))


def test_a_kernel_that_dies_at_boot_gets_a_second_chance_with_an_early_console(behave: Behave) -> None:
    behave("oopses-at-first-boot")
    done = one()
    assert (done.run.result, done.run.attempts) == ("survived", 2)
    assert "the first attempt ended in no-boot" in done.notes[0]


def test_stalls_and_words_that_look_like_a_crash_are_told_and_end_nothing(behave: Behave) -> None:
    behave("harmless")
    run = one().run
    assert (run.result, run.attempts) == ("survived", 1)
    assert [(event.kind, event.fatal, event.removal) for event in run.events] == [
        ("bug", False, False),
        ("soft-lockup", False, False),
    ]
    assert status_of(run) is Status.NOT_AFFECTED


def test_kvm_that_fails_inside_the_guest_is_replaced_by_emulation(behave: Behave) -> None:
    behave("kvm-fails")
    (done,) = asyncio.run(session(Accelerator("kvm", "the probe's kernel spoke")).run([Case("pc")]))
    assert done.run.accelerator == "tcg"
    assert "repeated under emulation" in done.notes[0]


def test_evidence_that_cannot_be_written_costs_no_result(behave: Behave, tmp_path: Path) -> None:
    behave("good")
    (tmp_path / "full").write_text("a file where a folder should be")
    (done,) = asyncio.run(session(Accelerator("tcg", "as asked for"), tmp_path / "full").run([Case("pc")]))
    assert (done.run.result, done.run.console) == ("survived", None)
    assert "could not be written" in done.notes[0]


def test_runs_beside_each_other_keep_their_order_and_their_evidence_apart(behave: Behave, tmp_path: Path) -> None:
    behave("good")
    cases = [Case("pc", panic_on_oops=panic, mode=mode) for panic in (0, 1) for mode in ("legacy", "forced-legacy")]
    together = session(Accelerator("tcg", "as asked for"), tmp_path / "evidence")
    together.jobs = 4
    done = asyncio.run(together.run(cases))
    assert [(one.run.panic_on_oops, one.run.mode) for one in done] == [
        (case.panic_on_oops, case.mode) for case in cases
    ]
    assert len({one.run.console for one in done}) == len(cases)
    assert all(Path(str(one.run.qmp)).read_text() for one in done)
