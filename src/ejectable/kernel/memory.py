# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel, read from its memory: code after relocation, alternatives, ftrace and live patches.

/proc/kcore is an ELF core file of the kernel's address space (fs/proc/kcore.c), /proc/kallsyms has the addresses of
now, /sys/kernel/btf the types. Nothing is read but what is asked for: a function is a few pages.
"""

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import BinaryIO, cast

from ejectable.errors import BadInput, DamagedInput, Missing
from ejectable.intake import DEFAULT_LIMITS, Limits, open_regular, read_bounded
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.kprobes import Kprobe, read_kprobes
from ejectable.kernel.program import Image, NotMapped, Program, Segment, Symbol, SymbolTable, Types
from ejectable.model import Arch, Doubt, DoubtKind

__all__ = ["CoreFile", "MemoryKernel", "read_proc_kallsyms"]

PHDR = struct.Struct("<IIQQQQQQ")
PT_LOAD = 1
PF_X = 1
MACHINES: dict[int, Arch] = {62: "x86_64", 183: "aarch64"}  # EM_X86_64, EM_AARCH64: include/uapi/linux/elf-em.h
MOST_SEGMENTS = 4096
MOST_KALLSYMS = 256 << 20
MOST_BTF = 64 << 20
PAGE = 4096


class _Window:
    """The bytes of one segment, read when they are asked for: what `Segment.data` needs of a memoryview."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._pages: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: slice) -> bytes:
        start, stop, step = key.indices(self._size)
        if step != 1:
            raise IndexError("only a plain slice of memory can be read")
        found = bytearray()
        while start < stop:
            page = start // PAGE
            part = self._page(page)[start % PAGE : start % PAGE + stop - start]
            if not part:
                break
            found += part
            start += len(part)
        return bytes(found)

    def cover(self, start: int, data: bytes) -> None:
        """Show these bytes in the place of what is there."""
        for at, byte in enumerate(data, start):
            page = bytearray(self._page(at // PAGE))
            page[at % PAGE] = byte
            self._pages[at // PAGE] = bytes(page)

    def _page(self, page: int) -> bytes:
        """One page, kept: code does not change while one function of it is run."""
        if page not in self._pages:
            try:
                data = os.pread(self._file.fileno(), PAGE, self._offset + page * PAGE)
            except OSError:  # EFAULT, EIO: not backed by memory
                data = b""
            self._pages[page] = data.ljust(PAGE, b"\0")
        return self._pages[page]


class CoreFile:
    """An ELF core file of a kernel's memory; close it. Raises `DamagedInput`, `BadInput` or `Missing` when opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open_regular(path)
        try:
            self._read_headers()
        except OSError as error:
            self._file.close()
            raise Missing(f"{path}: may not be read: {error.strerror}.", hint="Is the kernel locked down?") from error
        except BaseException:
            self._file.close()
            raise

    def _read_headers(self) -> None:
        head = self._file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            raise BadInput("expected a 64-bit little-endian ELF core file", path=self.path)
        machine = struct.unpack_from("<H", head, 18)[0]
        if machine not in MACHINES:
            raise BadInput(f"a core file of an unknown machine ({machine})", path=self.path)
        self.arch: Arch = MACHINES[machine]
        table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        if size != PHDR.size or not 0 < count <= MOST_SEGMENTS:
            raise DamagedInput("its program headers make no sense", path=self.path, offset=54)
        raw = os.pread(self._file.fileno(), size * count, table) if table < 1 << 40 else b""
        if len(raw) < size * count:
            raise DamagedInput("its program headers are cut off", path=self.path, offset=len(head))
        self._loads = [header for header in PHDR.iter_unpack(raw) if header[0] == PT_LOAD and header[6]]

    def image(self, *addresses: int) -> Image:
        """The segments that hold any of these virtual addresses, to be read lazily."""
        segments: list[Segment] = []
        for number, (_, flags, offset, vaddr, _, _, size, _) in enumerate(self._loads):
            if offset >= 1 << 63 or not any(vaddr <= address < vaddr + size for address in addresses):
                continue
            if segments and any(s.address < vaddr + size and vaddr < s.address + s.size for s in segments):
                continue  # arm64 lists the modules' area apart and within vmalloc
            data = cast("memoryview", _Window(self._file, offset, size))
            segments.append(Segment(vaddr, data, size, bool(flags & PF_X), f"memory {number}"))
        return Image(self.arch, segments)

    def read(self, address: int, size: int) -> bytes:
        """Bytes as they are now, not kept: data changes while it is looked at. Raises `DamagedInput` for no memory."""
        for _, _, offset, vaddr, _, _, length, _ in self._loads:
            if offset < 1 << 63 and vaddr <= address and address + size <= vaddr + length:
                try:
                    data = os.pread(self._file.fileno(), size, offset + address - vaddr)
                except OSError:  # EFAULT, EIO: not backed by memory
                    continue
                if len(data) == size:
                    return data
        raise DamagedInput(f"there is no memory at {address:#x}", path=self.path)

    def close(self) -> None:
        """Close the file; no segment can be read any more."""
        self._file.close()


def read_proc_kallsyms(path: str, limit: int = MOST_KALLSYMS) -> dict[str | None, list[tuple[int, str, str]]]:
    """/proc/kallsyms by module (`None`: the kernel itself), each a list of (address, kind, name) by address.

    Layout of a line: address, kind, name, and for a module's symbol a tab and [module] (kernel/kallsyms.c, s_show).
    Raises `Missing` where the kernel hides the addresses (kernel.kptr_restrict).
    """
    with open_regular(path) as file:
        text = read_bounded(file, limit, name=path)
    found: dict[str | None, list[tuple[int, str, str]]] = {}
    highest = 0
    for line in text.decode("utf-8", "replace").splitlines():
        parts = line.split(None, 3)
        if len(parts) < 3 or len(parts[0]) > 16:
            continue
        try:
            address = int(parts[0], 16)
        except ValueError:
            continue
        highest = max(highest, address)
        module = parts[3].strip("[]\n ") if len(parts) > 3 else None
        found.setdefault(module, []).append((address, parts[1], parts[2]))
    if not highest:
        raise Missing(
            f"{path}: the kernel hides its addresses.", hint="Run it as root, with kernel.kptr_restrict at 0 or 1."
        )
    for symbols in found.values():
        symbols.sort()
    return found


class MemoryKernel(Kernel):
    """The running kernel. `patched` are functions that live patches replace: "PATCH: OBJECT/FUNCTION"."""

    format = "memory"

    def __init__(
        self,
        *,
        kcore: str,
        kallsyms: str,
        btf_folder: str,
        release: str | None,
        banner: str | None,
        build_id: str | None,
        patched: tuple[str, ...] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__("/proc/kcore")
        self._limits = limits
        self._core = CoreFile(kcore)
        self._kallsyms_path = kallsyms
        self._btf_folder = btf_folder
        self._patched = patched
        # What the running kernel says of itself stands in for what an image's headers say.
        self._release, self._banner, self._build_id = release, banner, build_id
        self._module_types: dict[str, tuple[Types | None, tuple[Doubt, ...]]] = {}

    def close(self) -> None:
        """Let go of the memory."""
        self._core.close()

    @property
    def release(self) -> str | None:
        """`uname -r`, as the running kernel gives it."""
        return self._release

    @property
    def banner(self) -> str | None:
        """/proc/version."""
        return self._banner

    @property
    def arch(self) -> Arch:
        """The instruction set, by the header of its core file."""
        return self._core.arch

    @property
    def build_id(self) -> str | None:
        """In /sys/kernel/notes."""
        return self._build_id

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the kernel's memory as they are now; raises `DamagedInput` where there is none."""
        return self._core.read(address, size)

    def module_of(self, address: int) -> str | None:
        """The module that has a symbol at just this address; `None` for the kernel's own, and for none."""
        for module, symbols in self._kallsyms.items():
            if module is not None and any(found == address for found, _, _ in symbols):
                return module
        return None

    @cached_property
    def _kallsyms(self) -> Mapping[str | None, list[tuple[int, str, str]]]:
        return read_proc_kallsyms(self._kallsyms_path)

    @cached_property
    def _all(self) -> tuple[Image, SymbolTable]:
        """The memory that holds the kernel's text and its modules, and every symbol.

        Of a function that a live patch replaces, only the replacement keeps the name: it is what is called.
        """
        gone = {patch.rpartition("/")[2] for patch in self._patched}
        by_patch = {patch.partition(":")[0].replace("-", "_") for patch in self._patched}
        symbols: list[Symbol] = []
        for module, entries in self._kallsyms.items():
            replacing = module in by_patch
            for at, (address, kind, name) in enumerate(entries):
                following = entries[at + 1][0] if at + 1 < len(entries) else address
                if name in gone and not replacing and any(n == name for m in by_patch for _, _, n in self._of(m)):
                    name = f"{name}.replaced"  # noqa: PLW2901  (it goes by another name from here on)
                symbols.append(Symbol(name, address, min(following - address, 1 << 20), kind))
        wanted = [entries[len(entries) // 2][0] for entries in self._kallsyms.values()]
        text = next((address for address, _, name in self._of(None) if name in ("_stext", "_text")), 0)
        return self._core.image(text, *wanted), SymbolTable(symbols)

    def _of(self, module: str | None) -> list[tuple[int, str, str]]:
        return self._kallsyms.get(module, [])

    @cached_property
    def vmlinux(self) -> Program:
        """The kernel proper."""
        image, symbols = self._all
        program = Program("vmlinux", image, symbols, self._types[0])
        self._see_through(program)
        return program

    def _see_through(self, vmlinux: Program) -> None:
        """Show the code without the breakpoints of probes: those watch, and what is judged is what they watch."""
        with suppress(Missing, DamagedInput, NotMapped):  # no types, say; then a breakpoint is met where one is
            for probe in self.kprobes(vmlinux):
                if probe.original:
                    segment = vmlinux.image.segment_at(probe.place)
                    cast("_Window", segment.data).cover(probe.place - segment.address, probe.original)

    def kprobes(self, vmlinux: Program) -> tuple[Kprobe, ...]:
        """The probes that are set now; raises as `read_kprobes`."""
        return read_kprobes(vmlinux, self.read)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Types that are there and were not understood."""
        return self._types[1]

    @cached_property
    def _types(self) -> tuple[Types | None, tuple[Doubt, ...]]:
        return self._btf("vmlinux", None)

    def _btf(self, name: str, base: Types | None) -> tuple[Types | None, tuple[Doubt, ...]]:
        from ejectable.kernel.types.btf import BtfTypes, load_btf

        try:
            with open_regular(f"{self._btf_folder}/{name}") as file:
                data = read_bounded(file, min(MOST_BTF, self._limits.in_memory), name=name)
            return (load_btf(data, base=base) if isinstance(base, BtfTypes) else load_btf(data)), ()
        except Missing:
            return None, ()
        except BadInput as error:
            where = f"/sys/kernel/btf/{name}"
            return None, (Doubt(DoubtKind.UNPARSED, where, f"No types: {error.message}."),)

    def _types_of(self, module: str) -> tuple[Types | None, tuple[Doubt, ...]]:
        if module not in self._module_types:
            self._module_types[module] = self._btf(module, self._types[0])
        return self._module_types[module]

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        """Types that are there and were not understood."""
        name = name.replace("-", "_")
        return self._types_of(name)[1] if self._of(name) else ()

    def module(self, name: str) -> Program | None:
        """A module that is loaded; `None` if it is not."""
        name = name.replace("-", "_")
        if not self._of(name):
            return None
        image, symbols = self._all
        code = [address for address, kind, _ in self._of(name) if kind in "tT"]
        own = (code[0], code[-1]) if code else None
        return Program(name, image, symbols, self._types_of(name)[0] or self._types[0], own)

    def module_names(self) -> frozenset[str]:
        """The modules that are loaded and have symbols."""
        return frozenset(name for name in self._kallsyms if name)

    def builtin(self, name: str) -> bool | None:
        """Memory does not tell."""
        del name
        return None
