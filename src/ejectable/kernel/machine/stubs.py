# SPDX-License-Identifier: GPL-2.0-or-later
"""Stubs: what stands for a function that is called and not run. It answers 0, except the general services here.

These are the kernel's general services: allocators give memory, the list checks approve, memory is moved.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ejectable.kernel.machine.core import Machine

__all__ = ["REPORTS", "Arguments", "Stub", "general_stub"]

# What the kernel calls to report corruption before it goes on: lib/refcount.c.
REPORTS = frozenset(("refcount_warn_saturate",))
Arguments = tuple[int, ...]
Stub = int | Callable[["Machine", Arguments], int]

# mm/slab_common.c; the names' tails changed in v6.10 (_noprof) and v6.11 (__kmalloc_cache).
ALLOCATOR = re.compile(
    r"_*(?:kmalloc|kzalloc|kcalloc|kmem_cache_alloc|kvmalloc|vmalloc|vzalloc|kvzalloc)(?!.*_bulk)\w*"
)
# CONFIG_DEBUG_LIST and CONFIG_LIST_HARDENED (v6.6): true lets the list operation happen.
APPROVED = frozenset(
    ("__list_add_valid", "__list_del_entry_valid", "__list_add_valid_or_report", "__list_del_entry_valid_or_report")
)


def _allocate(machine: "Machine", arguments: Arguments) -> int:
    # The size is the first argument of some and the third of others; a page is more than either here needs.
    sizes = [value for value in (arguments[0], arguments[2]) if 0 < value <= machine.bounds.moved]
    return machine.memory.allocate(max([4096, *sizes]))


def _size(machine: "Machine", size: int) -> int:
    if size > machine.bounds.moved:
        machine.reached("moved")
    return min(size, machine.bounds.moved)


def _memset(machine: "Machine", arguments: Arguments) -> int:
    target, value, size = arguments[:3]
    machine.memory.write(target, bytes([value & 0xFF]) * _size(machine, size))
    return target


def _memmove(machine: "Machine", arguments: Arguments) -> int:
    target, source, size = arguments[:3]
    machine.memory.write(target, machine.memory.read(source, _size(machine, size)))
    return target


SERVICES: Mapping[str, Stub] = {
    **dict.fromkeys(APPROVED, 1),
    **dict.fromkeys(("memset", "__memset", "memset_orig"), _memset),
    **dict.fromkeys(("memcpy", "__memcpy", "memmove", "__memmove"), _memmove),
}


def general_stub(name: str) -> Stub:
    """The stub for the function `name`: a number that it answers, or a function that makes the answer."""
    return SERVICES.get(name) or (_allocate if ALLOCATOR.fullmatch(name) else 0)
