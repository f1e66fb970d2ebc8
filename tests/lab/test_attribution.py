# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose fault a crash is: the phase it began in, the removal's path, its process and its work queue."""

import pytest

from ejectable.advisories import registry
from ejectable.crash import Reader
from ejectable.lab.attribution import Mark, attribute
from ejectable.model import Event, GuestEvent

MARKS = [Mark(1, "use", 10), Mark(2, "trigger", 20, pid=77), Mark(3, "after", 40), Mark(4, "plug", 50)]
HEAD = "BUG: kernel NULL pointer dereference, address: 0\n#PF: supervisor instruction fetch in kernel mode\n"
DIED = "Oops: 0010 [#1] PREEMPT SMP NOPTI\nCPU: 0 PID: {pid} Comm: {comm} Not tainted 6.9.0 #1\n{queue}RIP: 0010:0x0\n"
DEFECT = ("vp_del_vqs", "virtblk_remove", "virtio_dev_remove", "device_release_driver_internal")
PROBE = ("vp_del_vqs", "virtblk_probe", "virtio_dev_probe", "really_probe")


def read(line: int, *functions: str, pid: int = 9, comm: str = "kworker/u2:0", queue: str = "") -> Event:
    """A call of address 0 from these functions that begins on this line of the console."""
    work = f"Workqueue: {queue}\n" if queue else ""
    frames = "".join(f" {function}+0x6e/0x220\n" for function in functions)
    text = HEAD + DIED.format(pid=pid, comm=comm, queue=work) + f"Call Trace:\n <TASK>\n{frames} </TASK>\n"
    reader = Reader("console", first_line=line)
    stamped = "".join(f"[    7.123456] {one}\n" for one in f"{text}---[ end trace 0 ]---\n".splitlines())
    (event,) = [*reader.feed(stamped.encode()), *reader.finish()]
    return event


def told(line: int, *functions: str, pid: int = 9, comm: str = "kworker/u2:0", queue: str = "") -> GuestEvent:
    """What is said of such a call."""
    (event,) = attribute([read(line, *functions, pid=pid, comm=comm, queue=queue)], MARKS)
    return event


@pytest.mark.parametrize(
    ("line", "phase", "advisory"),
    [(5, "boot", None), (15, "use", None), (25, "trigger", "CVE-2024-42134"), (45, "after", "CVE-2024-42134")],
)
def test_only_what_began_after_the_trigger_is_the_removals(line: int, phase: str, advisory: str | None) -> None:
    event = told(line, *DEFECT)
    assert (event.phase, event.fatal, event.removal, event.advisory) == (phase, True, advisory is not None, advisory)


def test_a_report_belongs_to_the_phase_of_its_first_line() -> None:
    assert told(19, *DEFECT).phase == "use"


def test_the_same_function_while_a_device_is_set_up_is_not_the_removal() -> None:
    assert (told(25, *PROBE).removal, told(25, *PROBE).advisory) == (False, None)


@pytest.mark.parametrize(
    ("functions", "removal"),
    [
        (("kfree", "pci_stop_and_remove_bus_device"), True),
        (("kfree", "virtio_dev_remove.cold"), True),
        (("kfree", "pciehp_unconfigure_device.isra.0"), True),
        (("kfree", "__x64_sys_delete_module"), True),
        (("sysrq_handle_crash", "write_sysrq_trigger"), False),
        (("kfree", "acpiphp_hotplug_notify"), False),  # which plugs as well
        (("kfree", "my_virtio_dev_remove_counter"), False),
    ],
)
def test_a_removal_function_in_the_trace_ties_it_to_the_removal_wherever_it_runs(
    functions: tuple[str, ...], removal: bool
) -> None:
    assert told(25, *functions).removal is removal


def test_a_frame_that_the_unwinder_doubts_ties_nothing() -> None:
    assert not told(25, "kfree", "? virtio_dev_remove").removal


def test_the_mechanisms_own_queue_thread_or_process_ties_it_while_the_device_goes() -> None:
    assert told(25, "kfree", queue="kacpi_hotplug acpi_hotplug_work_fn").removal
    assert told(25, "kfree", comm="irq/24-pciehp").removal
    assert told(25, "kfree", comm="init", pid=77).removal
    assert not told(25, "kfree", comm="init", pid=78).removal
    assert not told(25, "kfree", queue="events some_work").removal
    # The same queue plugs the next device.
    assert not told(55, "kfree", queue="kacpi_hotplug acpi_hotplug_work_fn").removal
    assert not told(15, "kfree", queue="kacpi_hotplug acpi_hotplug_work_fn").removal


def test_the_removals_path_counts_in_a_later_phase_too_for_work_may_be_left_behind() -> None:
    assert told(55, "kfree", "pci_stop_and_remove_bus_device").removal


def test_an_advisory_that_is_not_asked_by_default_is_recognised_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defect = registry()["CVE-2024-42134"]
    monkeypatch.setattr(type(defect), "proven", False)
    event = read(25, *DEFECT)
    assert attribute([event], MARKS)[0].advisory is None
    assert attribute([event], MARKS, (defect.id,))[0].advisory == defect.id
