# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's memory: the kernel's image, copied page by page as it is touched, and room for objects.

Addresses of our own are canonical, far apart, and in no kernel's image, so that a wild access faults:

    HEAP     objects; each stands alone with an unmapped page behind its last one
    STACK    the stack
    PERCPU   what gs (x86-64) and tpidr_el1 (arm64) point to: zeroes, or the image's initial values
    TASK     `current`: zeroes
    SHADOW_STACK  return addresses a second time, on arm64 with CONFIG_SHADOW_CALL_STACK: zeroes
    DOOR     one address for each callback, and the one that a function returns to
"""

import struct
from collections.abc import Callable
from typing import Any

from ejectable.errors import DamagedInput
from ejectable.kernel.machine.bounds import Bounds
from ejectable.kernel.machine.sanitizers import originals
from ejectable.kernel.program import Image

__all__ = [
    "DOOR",
    "MARK",
    "PAGE",
    "PERCPU",
    "SHADOW",
    "SHADOW_STACK",
    "STACK",
    "STACK_SIZE",
    "TASK",
    "Memory",
    "on_stack",
]

PAGE = 4096
HEAP = 0xFFFF_8880_1000_0000
STACK, STACK_SIZE = 0xFFFF_8880_0800_0000, 0x8000
PERCPU, PERCPU_SIZE = 0xFFFF_8890_0000_0000, 1 << 22
TASK, TASK_SIZE = 0xFFFF_8880_0C00_0000, 0x8000
SHADOW_STACK, SHADOW_STACK_SIZE = 0xFFFF_8880_0D00_0000, 0x1000
DOOR = 0xFFFF_8880_0E00_0000
MASK = (1 << 64) - 1
NEAR_NULL = 1 << 16
# What is there apart from the image, as start and size; objects as far as they may ever reach.
# A pointer that leads nowhere, and is told from every other: not canonical, and without a tag.
MARK = 0x00ED_0000_0000_0000
OWN = ((MARK, NEAR_NULL), (HEAP, 1 << 28), (STACK, STACK_SIZE), (TASK, TASK_SIZE), (DOOR, PAGE), (PERCPU, PERCPU_SIZE))
SHADOW = TASK + 0x4000  # zeroes, for who asks for shadow memory by a call


def on_stack(address: int) -> bool:
    """Whether it is on the stack, or on the one that holds return addresses a second time."""
    return STACK <= address < STACK + STACK_SIZE or SHADOW_STACK <= address < SHADOW_STACK + SHADOW_STACK_SIZE


class Memory:
    """What one engine has mapped. `reached` is told the name of a bound that is in the way."""

    def __init__(self, engine: Any, image: Image, bounds: Bounds, reached: Callable[[str], None]) -> None:
        self._bounds = bounds
        self._reached = reached
        self._engine = engine
        self._image = image
        self._mapped: set[int] = set()
        self._heap = HEAP
        self._objects: dict[int, int] = {}
        engine.mem_map(STACK, STACK_SIZE)
        engine.mem_map(DOOR, PAGE)
        if image.arch == "aarch64":
            engine.mem_map(SHADOW_STACK, SHADOW_STACK_SIZE)
            self._mapped.update(range(SHADOW_STACK, SHADOW_STACK + SHADOW_STACK_SIZE, PAGE))
        self._mapped.update(range(STACK, STACK + STACK_SIZE, PAGE), (DOOR,))

    def bring_in(self, address: int) -> bool:
        """Map the page that holds `address`; False where nothing should be there."""
        page = address & ~(PAGE - 1)
        if page in self._mapped:
            return True
        content = self._content(page)
        if content is None:
            return False
        if len(self._mapped) >= self._bounds.pages:
            self._reached("pages")
            return False
        self._engine.mem_map(page, PAGE)
        self._mapped.add(page)
        if content:
            self._engine.mem_write(page, content)
        return True

    def _content(self, page: int) -> bytes | None:
        if PERCPU <= page < PERCPU + PERCPU_SIZE or TASK <= page < TASK + TASK_SIZE:
            return b""
        content = self._of_image(page)
        if content is None and self._is_shadow(page):
            return b""
        # Per-CPU variables are addressed relative to the base of this processor's area: on arm64, and on x86-64
        # since v6.15, the variable's own address is added to it.
        return content if content is not None else self._of_image(page - PERCPU & MASK)

    def _is_shadow(self, page: int) -> bool:
        """Whether KASAN would look here for what it knows of memory that is there, or of what null leads to."""
        for original in originals(self._image.arch, page, PAGE):
            start, end = original.start, original.stop
            if start < NEAR_NULL or any(start < at + size and at < end for at, size in OWN):
                return True
            if any(start < one.address + one.size and one.address < end for one in self._image.segments):
                return True
        return False

    def _of_image(self, page: int) -> bytes | None:
        held: bytearray | None = None
        for segment in self._image.segments:
            if segment.address >= page + PAGE:
                break
            if segment.address + segment.size <= page:
                continue
            held = bytearray(PAGE) if held is None else held
            start = max(segment.address, page)
            data = segment.data[start - segment.address : page + PAGE - segment.address]
            held[start - page : start - page + len(data)] = data
        return None if held is None else bytes(held)

    def allocate(self, size: int) -> int:
        """The address of `size` zero bytes, followed by a page that is not there."""
        pages = max(1, -(-size // PAGE))
        if size < 0 or self._heap + pages * PAGE - HEAP > self._bounds.heap:
            self._reached("heap")
            raise DamagedInput(f"an object of {size} bytes is more than this experiment has room for")
        address = self._heap
        self._engine.mem_map(address, pages * PAGE)
        self._mapped.update(range(address, address + pages * PAGE, PAGE))
        self._heap += (pages + 1) * PAGE
        self._objects[address] = pages * PAGE
        return address

    def discard(self, address: int) -> int | None:
        """Take away the object that begins at `address`, so that touching it faults; its size, `None` if none does."""
        size = self._objects.pop(address, None)
        if size is not None:
            self._engine.mem_unmap(address, size)
            self._mapped.difference_update(range(address, address + size, PAGE))
        return size

    def snapshot(self) -> tuple[tuple[int, bytes], ...]:
        """All objects as they are now, for `restore`."""
        return tuple((address, bytes(self._engine.mem_read(address, size))) for address, size in self._objects.items())

    def restore(self, snapshot: tuple[tuple[int, bytes], ...]) -> None:
        """Objects as they were; those allocated since are zeroed, and stay where they are."""
        known = dict(snapshot)
        for address, size in self._objects.items():
            self._engine.mem_write(address, known.get(address) or bytes(size))

    def owns(self, address: int) -> bool:
        """Whether `address` is in an object."""
        return HEAP <= address < self._heap

    def read(self, address: int, size: int) -> bytes:
        """Bytes as the run left them, or as the image holds them; raises `DamagedInput` where there are none."""
        self._reach(address, size)
        return bytes(self._engine.mem_read(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Put bytes there; raises `DamagedInput` where there is no memory."""
        self._reach(address, len(data))
        self._engine.mem_write(address, data)

    def _reach(self, address: int, size: int) -> None:
        for page in range(address & ~(PAGE - 1), address + max(size, 1), PAGE):
            if not self.bring_in(page):
                raise DamagedInput(f"there is no memory at {page:#x} in this experiment")

    def word(self, address: int) -> int:
        """The pointer at `address`."""
        return int(struct.unpack("<Q", self.read(address, 8))[0])

    def holds(self, address: int) -> bool:
        """Whether `address` can be read."""
        return self.bring_in(address)
