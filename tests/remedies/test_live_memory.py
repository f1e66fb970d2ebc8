# SPDX-License-Identifier: GPL-2.0-or-later
"""`check` says mitigated only where every legacy device holds a function that answers false when it is run."""

import json
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from ejectable.advisories.cve_2024_42134 import live
from ejectable.assess.memory import open_memory
from ejectable.cli.app import run
from ejectable.errors import Missing
from ejectable.intake import DEFAULT_LIMITS
from ejectable.kernel.code import indirect_calls
from ejectable.kernel.memory import MemoryKernel
from ejectable.remedies.live.evidence import prove
from tests.host.trees import affected_module
from tests.remedies.live_guest import LEGACY, MODERN, copy_of
from tests.remedies.live_machine import situation

pytestmark = [pytest.mark.kernels, pytest.mark.guest]


def check(tree: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, str]]:
    run(["check", "--root", str(tree), "--format", "json", "--no-cache"])
    found = json.loads(capsys.readouterr().out)
    return found["status"], {device["address"]: device["unplug"] for device in found["devices"]}


def opened(tree: Path) -> MemoryKernel:
    looked = situation(tree)
    assert looked.facts.running is not None
    return open_memory(looked.root, looked.facts.running, DEFAULT_LIMITS)


def guarded(tree: Path) -> bool:
    """Whether the hook stands, and every legacy device with it."""
    looked = situation(tree)
    assert looked.facts.running is not None
    with closing(opened(tree)) as kernel:
        modules = (tree / "proc/modules").read_text()
        found = live.repairs(kernel, modules, looked.facts.running.modules.get("virtio_pci"))
    assert found.guarded == (found.repaired == LEGACY)
    return found.guarded


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repaired machine whose memory is written to, and put back: copies of it take their time."""
    return copy_of("repaired", tmp_path_factory.mktemp("shared") / "tree", own_memory=True)


def overwrite(tree: Path, place: int, content: bytes) -> bytes:
    """Write into the tree's memory; what was there."""
    path = tree / "proc/kcore"
    raw = path.read_bytes()[:4096]
    for number in range(struct.unpack_from("<H", raw, 56)[0]):
        _, _, offset, vaddr, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", raw, 64 + 56 * number)
        if vaddr <= place < vaddr + size:
            with path.open("r+b") as file:
                file.seek(offset + place - vaddr)
                before = file.read(len(content))
                file.seek(offset + place - vaddr)
                file.write(content)
            return before
    raise AssertionError(f"{place:#x} is not in the memory that was kept")


def poke(tree: Path, address: str, value: Callable[[live.Memory], int]) -> None:
    """Write a pointer into the member is_avq of one device, in the tree's memory."""
    kernel = opened(tree)
    memory = live.Memory(kernel)
    device = next(found for found in memory.devices if found.address == address)
    place = device.device + memory.offset("virtio_pci_device", "is_avq")
    word = struct.pack("<Q", value(memory))
    kernel.close()
    overwrite(tree, place, word)


def change(tree: Path, name: str, content: bytes, *, member: str | None = None) -> Callable[[], object]:
    """Write at a symbol of the tree's memory, or into a member of the struct kprobe there; what puts it back."""
    kernel = opened(tree)
    memory = live.Memory(kernel)
    place = symbol(name)(memory) + (memory.offset("kprobe", member) if member else 0)
    kernel.close()
    before = overwrite(tree, place, content)
    return lambda: overwrite(tree, place, before)


def symbol(name: str) -> Callable[[live.Memory], int]:
    def find(memory: live.Memory) -> int:
        found = memory.program.symbols.get(name)
        assert found is not None
        return found.address

    return find


class TestCheck:
    def test_a_machine_whose_every_legacy_device_is_repaired_is_mitigated(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, devices = check(copy_of("repaired", tmp_path / "tree"), capsys)
        assert (status, set(devices.values())) == ("mitigated", {"safe"})

    def test_without_the_module_it_is_affected(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, devices = check(copy_of("bare", tmp_path / "tree"), capsys)
        assert status == "affected"
        assert {address for address, unplug in devices.items() if unplug == "would_oops"} == set(LEGACY)

    @pytest.mark.parametrize(
        ("what", "value"),
        [
            ("a function that answers true or works on something else", symbol("vp_del_vqs")),
            ("the middle of a function", lambda memory: symbol("ejectable_answer")(memory) + 1),
            ("no function at all", lambda _: 0x1234),
        ],
    )
    def test_one_device_that_holds_anything_else_keeps_it_affected(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        what: str,
        value: Callable[[live.Memory], int],
    ) -> None:
        tree = copy_of("repaired", tmp_path / "tree", own_memory=True)
        poke(tree, LEGACY[1], value)
        status, devices = check(tree, capsys)
        assert (status, devices[LEGACY[0]], devices[LEGACY[1]]) == ("affected", "safe", "would_oops"), what

    def test_a_device_whose_pointer_is_filled_just_now_is_guarded(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tree = copy_of("repaired", tmp_path / "tree", own_memory=True)
        poke(tree, LEGACY[1], symbol("ejectable_answer"))
        assert check(tree, capsys)[0] == "mitigated"

    # Each alone takes the guard away: (symbol, member of struct kprobe, what is written there).
    UNGUARDED: ClassVar[dict[str, tuple[str, str | None, bytes]]] = {
        "the code of the function calls nobody": ("vp_del_vqs", None, bytes.fromhex("0f1f440000")),
        "all probes are switched off (debugfs)": ("kprobes_all_disarmed", None, b"\1"),
        "tracing is switched off (kernel.ftrace_enabled)": ("ftrace_enabled", None, bytes(4)),
        "no probe is in the table": ("kprobe_table", None, bytes(8 * 64)),
        "the probe is disabled": ("ejectable_kprobe", "flags", b"\2"),
        "the probe's code is gone": ("ejectable_kprobe", "flags", b"\1"),
        "the probe calls another handler": ("ejectable_kprobe", "pre_handler", bytes(8)),
        "the handler does nothing": ("ejectable_act", None, bytes.fromhex("31c0c3")),
        "the function that it gives answers true": ("ejectable_answer", None, bytes.fromhex("b801000000c3")),
        "it was built for another kernel": ("ejectable_target", None, b"00" * 20),
    }

    @pytest.mark.parametrize("what", UNGUARDED)
    def test_a_guard_that_lacks_anything_is_none(self, shared: Path, what: str) -> None:
        name, member, content = self.UNGUARDED[what]
        put_back = change(shared, name, content, member=member)
        try:
            assert not guarded(shared)
        finally:
            put_back()
        assert guarded(shared)

    @pytest.mark.parametrize("state", ["Unloading", "Loading"])
    def test_a_module_on_its_way_guards_nothing(self, tmp_path: Path, state: str) -> None:
        tree = copy_of("repaired", tmp_path / "tree")
        modules = tree / "proc/modules"
        modules.write_text(modules.read_text().replace(" Live ", f" {state} ", 1))
        assert not guarded(tree)

    def test_another_build_of_the_driver_is_not_guarded(self, tmp_path: Path) -> None:
        tree = copy_of("repaired", tmp_path / "tree")
        note = tree / "sys/module/virtio_pci/notes/.note.gnu.build-id"
        content = note.read_bytes()
        note.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not guarded(tree)

    def test_a_module_that_is_loaded_proves_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tree = copy_of("bare", tmp_path / "tree")
        with (tree / "proc/modules").open("a") as file:
            file.write("ejectable_live 16384 0 - Live 0xffffffffc022d000\n")
        assert check(tree, capsys)[0] == "affected"

    def test_without_a_look_at_memory_a_loaded_module_leaves_it_open(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # The verdict comes from files then: as a user sees it who is not root.
        from tests.host.trees import Machine

        tree = Machine(module=affected_module()).build(tmp_path / "tree")
        assert check(tree, capsys)[0] == "affected"
        with (tree / "proc/modules").open("a") as file:
            file.write("ejectable_live 16384 0 - Live 0x0000000000000000\n")
        status, devices = check(tree, capsys)
        assert status == "unknown"
        assert "would_oops" not in devices.values()

    def test_a_legacy_device_that_memory_does_not_have_is_not_taken_for_repaired(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tree = copy_of("repaired", tmp_path / "tree")
        for folder in (tree / "sys/devices/pci0000:00", tree / "sys/bus/pci/devices"):
            (folder / LEGACY[1]).rename(folder / "0000:00:09.0")
        for link in (tree / "sys/bus/virtio/devices").iterdir():
            target = str(link.readlink()).replace(LEGACY[1], "0000:00:09.0")
            link.unlink()
            link.symlink_to(target)
        status, devices = check(tree, capsys)
        assert (status, devices["0000:00:09.0"]) == ("affected", "would_oops")


class TestPrecautions:
    def test_the_layout_is_proven_three_ways(self, tmp_path: Path) -> None:
        proof = prove(situation(copy_of("bare", tmp_path / "tree")))
        assert "is_avq is at 0x448 by the run, by the disassembly and by the kernel's types" in proof.details
        assert proof.target.driver_build_id
        assert "vp_del_vqs() is the only one" in " ".join(proof.details)
        assert "#define EJECTABLE_FILL { 8, 1, { 1096 } }" in proof.target.hook.lines

    def test_a_copy_of_the_function_inlined_elsewhere_refuses_it(self, tmp_path: Path) -> None:
        tree = copy_of("bare", tmp_path / "tree", own_memory=True)
        with closing(opened(tree)) as kernel:
            memory = live.Memory(kernel)
            function, other = (symbol(name)(memory) for name in ("vp_del_vqs", "vp_find_vqs_msix"))
            code = bytearray(kernel.read(function, 0x80))
            [call] = [
                found.site - function
                for found in indirect_calls(memory.program, "vp_del_vqs")
                if found.loaded_from == memory.offset("virtio_pci_device", "is_avq")
            ]
        # It goes by a thunk (retpoline), at a distance from where it stands.
        distance = struct.unpack_from("<i", code, call + 1)[0] + function - other
        struct.pack_into("<i", code, call + 1, distance)
        change(tree, "vp_find_vqs_msix", bytes(code))
        with pytest.raises(Missing, match=r"vp_find_vqs_msix\(\) calls through 0x448 as well"):
            prove(situation(tree))

    def test_a_modern_device_that_holds_another_function_refuses_it(self, tmp_path: Path) -> None:
        tree = copy_of("bare", tmp_path / "tree", own_memory=True)
        poke(tree, MODERN, symbol("vp_del_vqs"))
        with pytest.raises(Missing, match=r"a modern device, holds vp_del_vqs, and vp_is_avq was expected"):
            prove(situation(tree))

    def test_a_legacy_device_that_somebody_else_repaired_refuses_it(self, tmp_path: Path) -> None:
        tree = copy_of("bare", tmp_path / "tree", own_memory=True)
        poke(tree, LEGACY[0], symbol("vp_is_avq"))
        with pytest.raises(Missing, match=r"a legacy device, holds vp_is_avq and should be empty"):
            prove(situation(tree))

    def test_types_of_another_build_refuse_it(self, tmp_path: Path) -> None:
        from corpus.modules import vmlinux_btf
        from ejectable.kernel.module import Module
        from tests.host.trees import RELEASE

        tree = copy_of("bare", tmp_path / "tree")
        other = affected_module("affected-first")  # there the member comes early in the struct
        btf = Module(other.read_bytes(), name=other.name).btf
        assert btf is not None
        assert vmlinux_btf(RELEASE).read_bytes() == (tree / "sys/kernel/btf/vmlinux").read_bytes()
        (tree / "sys/kernel/btf/virtio_pci").write_bytes(btf)
        with pytest.raises(Missing, match=r"one of them is not this kernel's|not proven to be affected"):
            prove(situation(tree))

    def test_without_types_it_is_refused(self, tmp_path: Path) -> None:
        tree = copy_of("bare", tmp_path / "tree")
        (tree / "sys/kernel/btf/virtio_pci").unlink()
        with pytest.raises(Missing, match=r"types"):
            prove(situation(tree))
