# SPDX-License-Identifier: GPL-2.0-or-later
"""The module of `fix live` beside the function that it stands at, both in the sandbox, for any advisory's live part.

    beside = Beside(scene, LIVE, "6.12.117+deb12-cloud-amd64")
    beside.act(device)        # what the kprobe's handler does with this argument: `Acted(skips, value, changes)`

The module is compiled with one Debian kernel's headers, and has the offsets of the scene's own types. The handler is
run on a copy of the scene's objects at the same addresses; what it changes is written back to the scene.
"""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, locked
from corpus.builds import run_logged
from corpus.compilers import command as gcc
from corpus.modules import vmlinux_btf
from corpus.trees import headers, source
from ejectable.advisories.live_part import LivePart, resolve
from ejectable.errors import EjectableError
from ejectable.experiment import Scene
from ejectable.kernel.machine import Machine, Object, Stub
from ejectable.kernel.module import Module
from ejectable.kernel.program import Program, Symbol, Types
from ejectable.kernel.types.btf import load_btf
from ejectable.remedies.live.build import build
from ejectable.remedies.live.target import MODULE, SOURCES, Target
from ejectable.remedies.live.target import source as module_source
from ejectable.remedies.live.toolchain import compiler_for, read_headers

__all__ = ["HEADERS", "Acted", "Beside", "affected_module", "hook_module", "types_of"]

HEADERS = "6.12.117+deb12-cloud-amd64"
OWN = "ejectable_"
ARGUMENT = {"x86_64": ("di", "ax", "ip"), "aarch64": ("user_regs.regs", "user_regs.regs", "user_regs.pc")}
# What the fix of each is, taken out of Debian's source: (folder, the module's files, file, the fix, what was there).
REVERTED = {
    "CVE-2024-58093": (
        "drivers/pci/pcie", "aspm", ("aspm.c",), "aspm.c", "\tif (pdev != link->downstream)\n\t\tgoto out;\n", ""
    ),
    "CVE-2026-64457": (
        "drivers/virtio", "virtio_pci",
        ("virtio_pci_modern.c", "virtio_pci_common.c", "virtio_pci_legacy.c", "virtio_pci_common.h"),
        "virtio_pci_common.c", "&vp_dev->vqs[queue_idx]", "&vp_dev->vqs[i]",
    ),
}  # fmt: skip


class Acted(msgspec.Struct, frozen=True):
    """What a handler did: whether the function is not to be run, with which value then, and whether it wrote."""

    skips: bool
    value: int
    changes: bool


def types_of(release: str, module: bytes | None = None) -> Types:
    """The types of Debian's kernel, and of a module for it."""
    kernel = load_btf(vmlinux_btf(release).read_bytes())
    btf = Module(module, name="module").btf if module is not None else None
    return load_btf(btf, base=kernel) if btf is not None else kernel


def hook_module(part: LivePart, types: Types, release: str = HEADERS) -> Path:
    """ejectable_live.ko for this part with the offsets of `types`, compiled with the headers of `release`."""
    target = Target(release, "#1 SMP a build", "ab" * 20, "cd" * 20 if part.module else None, resolve(part, types))
    content = b"".join(module_source(name) for name in SOURCES) + target.header()
    kept = cache_folder() / "live" / f"hook-{hashlib.sha256(content).hexdigest()[:16]}.ko"
    with locked(f"live-hook-{part.advisory}"):
        if not kept.exists():
            found = read_headers(headers(release), release)
            with tempfile.TemporaryDirectory(prefix="live-") as folder:
                made = build(target, Path(folder), found, compiler_for(found))
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(made, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
    return kept


def affected_module(advisory: str, release: str = HEADERS) -> Path:
    """The code of an advisory as it was before its fix, built from Debian's source; with its own types."""
    folder, name, files, edited, fix, before = REVERTED[advisory]
    state = hashlib.sha256(repr(REVERTED[advisory]).encode()).hexdigest()[:8]
    kept = cache_folder() / "live" / f"affected-{advisory}-{release}-{state}" / f"{name}.ko"
    with locked(f"live-affected-{advisory}"):
        if kept.exists():
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        tree = source("6.12")
        with tempfile.TemporaryDirectory(prefix="affected-") as above:
            work = Path(above) / "work"
            work.mkdir()
            for file in files:
                shutil.copy(tree / folder / file, work)
            text = (work / edited).read_text()
            assert fix in text, f"{edited} of Debian's source has no {fix!r}"
            # The kernel itself exports these already.
            text = re.sub(r"^EXPORT_SYMBOL\w*\(.*\);\n", "", text, flags=re.MULTILINE)
            if "MODULE_LICENSE" not in text:
                text += '\n#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
            (work / edited).write_text(text.replace(fix, before))
            objects = " ".join(file.replace(".c", ".o") for file in files if file.endswith(".c"))
            several = f"{name}-y := {objects}\n" if len(files) > 1 else ""
            shutil.copy(tree / "drivers/pci/pci.h", above)  # aspm.c: #include "../pci.h"
            (work / "Kbuild").write_text(f"obj-m := {name}.o\n{several}ccflags-y += -Wno-unused-label\n")
            command: list[str | Path] = [
                "make",
                "-C",
                headers(release),
                f"M={work}",
                "KBUILD_MODPOST_WARN=1",
                "modules",
            ]
            log = cache_folder() / "logs" / f"affected-{advisory}.log"
            run_logged([*command, f"CC={gcc('gcc-12')}"], log)
            made = work / f"{name}.ko"
            run_logged(["pahole", "-J", "--btf_base", vmlinux_btf(release), made], log)
            shutil.copy(made, kept.with_suffix(".part"))
        kept.with_suffix(".part").rename(kept)
    return kept


class Beside:
    """A hook beside a scene."""

    def __init__(self, scene: Scene, part: LivePart, release: str = HEADERS) -> None:
        self._scene = scene
        types = scene.machine.types
        module = Module(hook_module(part, types, release).read_bytes(), name=MODULE)
        self._regs = types_of(release)
        self._program = Program(MODULE, module.image, module.symbols, self._regs)
        self._machine = Machine(self._program, step_into=self._follows)
        self._machine.stubs.update(
            {
                "sprint_symbol": self._described,
                "copy_from_kernel_nofault": _copied,
                "try_module_get": 1,
                **STRINGS,
                "ksize": lambda machine, arguments: 4096,  # noqa: ARG005  (the stub's signature)
            }
        )

    def act(self, argument: "int | Object") -> Acted:
        """Run the kprobe's handler for a call with this first argument; the scene's objects are as it left them."""
        before = self._scene.machine.memory.snapshot()
        memory = self._machine.memory
        for address, content in before:
            if not memory.owns(address):
                assert memory.allocate(len(content)) == address
            memory.write(address, content)
        registers = memory.allocate(4096)
        first, answer, place = ARGUMENT[self._program.arch]
        memory.write(registers + self._offset(first), int(argument.__index__()).to_bytes(8, "little"))
        outcome = self._machine.call("ejectable_act", 0, registers)
        assert outcome.exit == "returned", outcome.story()
        changes = False
        for address, content in before:
            now = memory.read(address, len(content))
            if now != content:
                changes = True
                self._scene.machine.memory.write(address, now)
        value = memory.word(registers + self._offset(answer))
        skips = bool((outcome.value or 0) & 0xFFFF_FFFF)
        if skips:
            self._goes_back(memory.word(registers + self._offset(place)))
        return Acted(skips, value, changes)

    def _goes_back(self, place: int) -> None:
        """Where the function is not run: what is run instead returns, and keeps the value."""
        found = self._program.symbols.at(place)
        assert found is not None
        assert (found[0].name, found[1]) == ("ejectable_return", 0)
        outcome = self._machine.call(place)
        assert (outcome.exit, outcome.calls) == ("returned", ())

    def _offset(self, path: str) -> int:
        member = self._regs.member("pt_regs", path)
        assert member is not None
        return member.offset

    def _described(self, machine: Machine, arguments: tuple[int, ...]) -> int:
        name, _, offset = self._scene.program.symbols.describe(arguments[1]).partition("+")
        text = f"{name}+{offset or '0x0'}/0x1000"
        machine.memory.write(arguments[0], text.encode("ascii", "replace")[:200] + b"\0")
        return len(text)

    def _follows(self, callee: Symbol, arguments: tuple[int, ...]) -> bool:
        del arguments
        return callee.name.startswith(OWN)


def _copied(machine: Machine, arguments: tuple[int, ...]) -> int:
    to, start, size = arguments[:3]
    try:
        content = machine.memory.read(start, size)
    except EjectableError:
        return -14 & 0xFFFF_FFFF_FFFF_FFFF
    machine.memory.write(to, content)
    return 0


def _string(machine: Machine, address: int) -> bytes:
    content = b""
    while b"\0" not in content:
        content += machine.memory.read(address + len(content), 1)
    return content[:-1]


def _compared(first: bytes, second: bytes) -> int:
    return (first > second) - (first < second) & (1 << 64) - 1


def _strncmp(machine: Machine, arguments: tuple[int, ...]) -> int:
    first, second = (_string(machine, address)[: arguments[2]] for address in arguments[:2])
    return _compared(first, second)


def _strchr(machine: Machine, arguments: tuple[int, ...]) -> int:
    at = _string(machine, arguments[0]).find(arguments[1] & 0xFF)
    return arguments[0] + at if at >= 0 else 0


def _memcmp(machine: Machine, arguments: tuple[int, ...]) -> int:
    first, second = (machine.memory.read(address, arguments[2]) for address in arguments[:2])
    return _compared(first, second)


# The kernel's own, which the module finds outside of itself.
STRINGS: dict[str, Stub] = {
    "strlen": lambda machine, arguments: len(_string(machine, arguments[0])),
    "strncmp": _strncmp,
    "strchr": _strchr,
    "memcmp": _memcmp,
}
