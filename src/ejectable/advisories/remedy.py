# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be done about one defect besides a fixed kernel, as data."""

import msgspec

from ejectable.model import Operation

__all__ = ["Workaround"]


class Workaround(msgspec.Struct, frozen=True):
    """Something a person does that keeps a machine from meeting the defect while it has it.

    `commands` can be pasted on the machine; in them {address}, {name}, {node} and {release} stand for the device that
    is exposed and for the kernel.
    """

    name: str  # one word with hyphens: "vfs-first"
    why: str  # one sentence: what it does and why that helps
    commands: tuple[str, ...] = ()
    cost: str = ""  # what it takes: a reboot, the interface is down
    avoids: tuple[Operation, ...] = ()  # the operations that it makes harmless; empty: all that meet the defect
    where: str = "machine"  # or "host": of the virtual machine
