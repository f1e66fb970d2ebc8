# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that wait are listed with what they wait for and who holds it; those in a circle are a deadlock."""

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import Reading, judge
from ejectable.crash.hangs import waits_for
from ejectable.crash.logs import read_bytes
from ejectable.report.crash import as_document, as_text
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []


def _reading(name: str) -> Reading:
    log = load(next(path for path in FIXTURES if path.stem == name)).log
    events = tuple(read_bytes(log, name).events)
    return Reading((name,), events, tuple(judge(event, choose(())) for event in events))


@pytest.mark.parametrize("name", ["hang-dead-locks", "hang-dead-owner", "hang-sysrq-w"])
def test_two_tasks_that_wait_for_each_other_are_a_deadlock(name: str) -> None:
    document = as_document(_reading(name))
    (circle,) = document.hangs.deadlocks
    assert {(task.name, task.pid) for task in circle} == {("irq/28-pciehp", 112), ("bash", 2210)}
    assert "a deadlock: irq/28-pciehp (pid 112) and bash (pid 2210)" in document.summary
    assert "restart the machine" in document.next_steps[0]


def test_without_a_word_of_who_holds_what_there_is_no_deadlock() -> None:
    found = as_document(_reading("hang-sysrq-t")).hangs
    assert not found.deadlocks
    assert [(task.process, task.holders) for task in found.tasks] == [("irq/28-pciehp", ()), ("bash", ())]


def test_each_task_is_shown_with_its_lock_and_the_holder() -> None:
    text = " ".join(" ".join(as_text(_reading("hang-dead-locks"), colour=False, width=400)).split())
    assert "bash (pid 2210) waits for a read-write semaphore (to write) (&ctrl->reset_lock)" in text
    assert "held by irq/28-pciehp (pid 112)" in text


@pytest.mark.parametrize(
    "name",
    [
        "hang-procstack",
        "hang-sysrq-t",
        "people-08a-hang-is-not-cve-2022-50636",
        "people-08b-hang-on-6.5",
        "people-09a-task-state-d-without-info-line",
    ],
)
def test_a_stuck_detach_is_called_that_with_what_to_look_at(name: str) -> None:
    document = as_document(_reading(name))
    assert "a detach is stuck" in document.summary
    assert any("back end" in step for step in document.next_steps)
    assert any("findmnt" in step for step in document.next_steps)


@pytest.mark.parametrize(
    ("trace", "what"),
    [
        ("__schedule schedule blk_mq_freeze_queue_wait del_gendisk virtblk_remove", "its queue is frozen"),
        ("__schedule schedule schedule_preempt_disabled __mutex_lock mutex_lock rtnl_lock dev_close", "rtnl"),
        ("__schedule schedule rwsem_down_read_slowpath down_read __get_super fsync_bdev", "(to read)"),
        ("__schedule schedule schedule_timeout wait_for_completion __flush_work cancel_work_sync stop_it", "a work"),
        ("__schedule schedule schedule_timeout wait_for_common kthread_stop stop_it", "a kernel thread"),
        ("__schedule schedule io_schedule folio_wait_bit filemap_read", "a read or write"),
        ("schedule wait_for_common_io blk_execute_rq scsi_execute_cmd sd_shutdown", "a command for a disk"),
    ],
)
def test_what_a_task_waits_for_is_told_by_its_trace(trace: str, what: str) -> None:
    assert what in (waits_for(trace.split()) or "")


def test_a_trace_that_does_not_tell_gives_no_reason() -> None:
    assert waits_for(["__schedule", "schedule", "my_thread_fn", "kthread"]) is None


def test_a_hang_in_the_removal_of_a_virtio_disk_names_no_defect_of_another_driver() -> None:
    """Whoever asks about every defect by name is not told one whose path the trace does not hold."""
    log = load(next(path for path in FIXTURES if path.stem == "near-virtblk-hang")).log
    events = tuple(read_bytes(log, "near-virtblk-hang").events)
    assert events
    assert [judge(event, choose(("all",)), events).advisory for event in events] == [None] * len(events)
