# SPDX-License-Identifier: GPL-2.0-or-later
"""Which part of a run each crash event belongs to, and whether the removal is to blame for it.

A run is divided by marks in the guest's kernel log: an event belongs to the phase of the last mark before its first
line. Two things tie an event to the removal: a removal function in its trace, or the process or work queue that the
trigger runs in. Only an advisory's signature on such an event proves a defect.
"""

import re
from collections.abc import Sequence
from typing import get_args

import msgspec

from ejectable.advisories import Advisory, choose
from ejectable.crash.frames import base
from ejectable.model import Event, EventKind, GuestEvent, Phase

__all__ = ["PHASES", "Mark", "attribute", "is_fatal", "phase_of"]

PHASES: tuple[Phase, ...] = get_args(Phase)
# Kinds of events after which the kernel, or one of its threads, cannot go on. Others are fatal if the report has the
# number of an Oops in it ("[#1]", show_regs/die): kernel BUGs, CFI, BTI.
FATAL: frozenset[EventKind] = frozenset(
    {
        "null-call",
        "null-deref",
        "paging-fault",
        "gpf",
        "panic",
        "double-fault",
        "divide-error",
        "undefined-instruction",
        "stack-overflow",
    }
)
# Functions that only run while a device, or its driver, goes away or is suspended. Not those that handle plugging as
# well (acpiphp_hotplug_notify, hotplug_event), nor those that a failed probe shares.
REMOVAL = re.compile(
    # drivers/pci/{remove,pci-driver,pci-sysfs}.c
    r"pci_(?:stop|remove)_bus_device|pci_stop_dev|pci_destroy_dev|pci_stop_and_remove_bus_device(?:_locked)?"
    r"|pci_device_remove|remove_store|pci_pm_(?:suspend|resume|freeze|thaw|restore)(?:_noirq|_late|_early)?"
    # drivers/pci/hotplug/{acpiphp_glue,pciehp_ctrl,pciehp_pci,shpchp_ctrl,shpchp_pci}.c
    r"|acpiphp_disable_and_eject_slot|acpiphp_disable_slot|disable_slot|trim_stale_devices"
    r"|pciehp_(?:unconfigure_device|disable_slot|sysfs_disable_slot)|__pciehp_disable_slot|remove_board"
    r"|shpchp_(?:unconfigure_device|disable_slot|sysfs_disable_slot)"
    # drivers/virtio/{virtio,virtio_pci_common}.c
    r"|virtio_dev_remove|virtio_pci_remove|unregister_virtio_(?:device|driver)"
    r"|virtio_pci_(?:freeze|restore)|virtio_device_(?:freeze|restore)"
    # drivers/base/{bus,dd}.c, kernel/module/main.c, drivers/base/power/main.c, kernel/power/suspend.c
    r"|unbind_store|device_driver_detach|driver_detach|(?:__\w+_)?sys_delete_module"
    r"|(?:__)?device_(?:suspend|resume)(?:_noirq|_late|_early)?|dpm_(?:suspend|resume)(?:_noirq|_late|_early|_start)?"
    r"|suspend_devices_and_enter"
)
# What a hotplug mechanism does its work in: drivers/acpi/osl.c, pciehp_hpc.c (a threaded interrupt), shpchp_core.c.
WORKQUEUES = re.compile(r"kacpi_hotplug\b|pciehp|shpchp-\d+")
THREADS = re.compile(r"irq/\d+-pciehp")
MOST_FRAMES = 24


class Mark(msgspec.Struct, frozen=True):
    """The beginning of a phase, as the guest's kernel log has it."""

    number: int  # of the command that asked for it
    phase: Phase
    line: int  # of the console, from 1
    pid: int | None = None  # of the process in the guest that pulls the trigger, where it is pulled there


def phase_of(line: int, marks: Sequence[Mark]) -> Phase:
    """The phase that a line of the console belongs to: "boot" before the first mark."""
    return next((mark.phase for mark in reversed(marks) if mark.line < line), "boot")


def is_fatal(event: Event) -> bool:
    """Whether the kernel, or one of its threads, ended with this event.

    Stalls, reports of sleeping in atomic context and warnings are none; nor are words of a driver that look alike.
    """
    return event.kind in FATAL or event.oops is not None


def attribute(events: Sequence[Event], marks: Sequence[Mark], named: Sequence[str] = ()) -> tuple[GuestEvent, ...]:
    """Every event with its phase, whether the removal is to blame, and the advisory whose signature it has.

    The advisories are those that are asked by default, and those named.
    """
    advisories = tuple({**choose(()), **(choose(named) if named else {})}.values())
    return tuple(_attribute(event, marks, advisories) for event in events)


def _attribute(event: Event, marks: Sequence[Mark], advisories: Sequence[Advisory]) -> GuestEvent:
    removal = _of_removal(event, marks)
    advisory = _advisory(event, advisories) if removal else None
    return GuestEvent(
        phase=phase_of(event.line, marks),
        kind=event.kind,
        title=event.title,
        function=event.function,
        process=event.process,
        line=event.line,
        fatal=is_fatal(event),
        removal=removal,
        advisory=advisory,
        trace=tuple(frame.function for frame in event.trace if frame.reliable)[:MOST_FRAMES],
    )


def _of_removal(event: Event, marks: Sequence[Mark]) -> bool:
    """Whether something ties the event to a removal that had begun before it."""
    before = [mark for mark in marks if mark.line < event.line]
    trigger = next((mark for mark in reversed(before) if mark.phase == "trigger"), None)
    if trigger is None:
        return False
    if any(frame.reliable and REMOVAL.fullmatch(base(frame.function)) for frame in event.trace):
        return True
    # A mechanism's own work queue and thread serve plugging, too: they count while the device goes away.
    if before[-1].phase not in ("trigger", "after"):
        return False
    return (
        WORKQUEUES.match(event.workqueue or "") is not None
        or THREADS.match(event.process or "") is not None
        or (trigger.pid is not None and event.pid == trigger.pid)
    )


def _advisory(event: Event, advisories: Sequence[Advisory]) -> str | None:
    """The one of these advisories whose signature the event has, or `None`."""
    for advisory in advisories:
        said = advisory.recognise(event)
        if said is not None and said.advisory is not None:
            return said.advisory
    return None
