# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be tried is told from what cannot before anything starts; modules come in the order in which they load."""

import struct
from pathlib import Path

import msgspec
import pytest

from ejectable.advisories import Scenario
from ejectable.errors import BadInput, DamagedInput, Missing, WrongUsage
from ejectable.kernel.config import Config
from ejectable.lab import request
from ejectable.lab.busybox import busybox
from ejectable.lab.case import AXES, DEVICES, MODES, TRIGGERS, Case
from ejectable.lab.features import Features
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.machines import parts
from ejectable.lab.matrix import Plan, plan, values
from ejectable.lab.modules import ModuleSet, depends_of, module_name, needed
from tests.advisories.toy import Toy

ONE = {"machine": ("pc",), "device": ("disk",), "mode": ("legacy",), "trigger": ("acpi-eject",)}
REST = {"panic-on-oops": ("0",), "io": ("idle",)}


def elf(depends: str, more: bytes = b"") -> bytes:
    """A module as far as .modinfo goes: header, sections, strings."""
    modinfo = b"license=GPL\0depends=" + depends.encode() + b"\0name=x\0" + more
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64
    header = b"\x7fELF\x02\x01" + bytes(10)
    table = at + len(modinfo) + len(names)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at, len(modinfo), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, at + len(modinfo), len(names), 0, 0, 1, 0),
    ]
    return header + modinfo + names + b"".join(sections)


def offered(**depends: str) -> ModuleSet:
    modules = ModuleSet()
    for name, needs in depends.items():
        modules.add(f"kernel/{name}.ko", lambda needs=needs: elf(needs, b"\0virtio_pci_legacy_probe\0"))  # type: ignore[misc]
    return modules


def kernel(modules: ModuleSet | None = None, config: dict[str, str] | None = None) -> GuestKernel:
    return GuestKernel(
        "vmlinuz", "x86_64", b"", ModuleSet() if modules is None else modules, Features(Config(config or {}))
    )


def reason(given: GuestKernel, **axes: str) -> str:
    made = plan(given, {**ONE, **REST, **{axis: (value,) for axis, value in axes.items()}})
    assert not made.cases
    return made.skipped[0].reason


def test_every_axis_takes_a_word_a_list_or_all() -> None:
    assert values("device", "disk") == ("disk",)
    assert values("device", "nic, disk,nic") == ("nic", "disk")
    assert values("mode", "all") == MODES
    with pytest.raises(WrongUsage, match="no 'floppy'"):
        values("device", "disk,floppy")
    with pytest.raises(WrongUsage, match="given nothing"):
        values("device", ",")


def test_every_combination_is_either_tried_or_skipped_with_a_reason() -> None:
    made = plan(kernel(), AXES)
    assert len(made.cases) + len(made.skipped) == 7 * 4 * 8 * 3 * 2 * 2
    assert all(skipped.reason for skipped in made.skipped)
    assert not {skipped.case for skipped in made.skipped} & set(made.cases)
    assert sum(count for _, count in made.reasons) == len(made.skipped)
    assert len({case.name for case in made.cases}) == len(made.cases)


def test_what_qemu_cannot_do_is_named() -> None:
    assert "has no PCIe" in reason(kernel(), trigger="pcie-hotplug")
    assert "runs aarch64 kernels" in reason(kernel(), machine="virt")
    assert "modern interface only" in reason(kernel(), device="vsock")


def test_what_the_kernel_cannot_do_is_named() -> None:
    assert "CONFIG_HOTPLUG_PCI_SHPC" in reason(kernel(config={"CONFIG_HOTPLUG_PCI_SHPC": "n"}), trigger="shpc")
    assert "CONFIG_VIRTIO_PCI_LEGACY" in reason(kernel(config={"CONFIG_VIRTIO_PCI_LEGACY": "n"}))
    # Kconfig writes no line for what hangs on an option that is off.
    without_any = kernel(config={"CONFIG_HOTPLUG_PCI": "n"})
    assert "come and go on q35" in reason(without_any, machine="q35", trigger="sysfs-remove")
    assert "cannot be unloaded" in reason(kernel(), trigger="module-unload")
    without = ModuleSet({"virtio_pci"}, builtin_known=True)
    assert "no virtio_blk" in reason(kernel(without))


def test_a_kernel_of_which_nothing_is_known_is_tried() -> None:
    assert plan(kernel(), {**ONE, **REST}).cases == (Case("pc"),)


def test_an_option_that_no_line_mentions_is_not_off() -> None:
    assert plan(kernel(config={"CONFIG_X": "y"}), {**ONE, **REST}).cases == (Case("pc"),)


def test_the_axes_are_the_contracts() -> None:
    assert DEVICES == ("disk", "nic", "scsi", "rng", "balloon", "console", "vsock")
    assert MODES == ("legacy", "modern", "transitional", "forced-legacy")
    assert "pci-unbind" in TRIGGERS
    assert [Case("pc", mode=mode).driven for mode in MODES] == ["legacy", "modern", "modern", "legacy"]


def test_a_modules_name_is_its_files() -> None:
    assert module_name("kernel/drivers/net/virtio-net.ko.xz") == "virtio_net"
    assert module_name("a/b.ko") == "b"
    assert module_name("a/b.kod") is None


def test_modules_come_behind_what_they_depend_on_and_once() -> None:
    modules = offered(
        virtio_blk="virtio-ring,virtio", virtio_pci="virtio,virtio_ring", virtio_ring="", virtio="virtio_ring"
    )
    order = [module.name for module in needed(modules, ("virtio_pci", "virtio_blk", "absent"))]
    assert order == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]


def test_modules_dep_goes_before_modinfo_and_a_replaced_module_before_both() -> None:
    modules = offered(a="b", b="", c="")
    modules.dependencies({"a": ("c",)})
    assert [module.name for module in needed(modules, ("a",))] == ["c", "a"]
    modules.add("elsewhere/a.ko", lambda: elf("b"))
    assert [module.name for module in needed(modules, ("a",))] == ["b", "a"]


def test_a_loop_of_modules_ends() -> None:
    assert [module.name for module in needed(offered(a="b", b="a"), ("a",))] == ["b", "a"]


@pytest.mark.parametrize("cut", [0, 10, 63, 100, 150])
def test_a_module_that_is_cut_off_is_told(cut: int) -> None:
    with pytest.raises(DamagedInput):
        depends_of(elf("a")[:cut], path="x.ko")


def test_a_kernel_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no such file"):
        open_kernel(str(tmp_path / "vmlinuz"))
    with pytest.raises(BadInput, match="no kernel image"):
        open_kernel(str(tmp_path))
    (tmp_path / "vmlinuz").write_bytes(b"nothing")
    with pytest.raises(BadInput):
        open_kernel(str(tmp_path / "vmlinuz"))


def test_a_busybox_of_the_wrong_kind_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "busybox"
    wrong.write_bytes(elf(""))
    with pytest.raises(BadInput, match="another architecture"):
        busybox("aarch64", str(wrong))
    wrong.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(BadInput, match="no 64-bit ELF"):
        busybox("x86_64", str(wrong))


def test_a_device_has_the_properties_that_an_advisory_asks_for() -> None:
    case = Case("pc", "balloon", "modern", "acpi-eject", properties=(("free-page-reporting", "on"),))
    assert parts(case, 1).devices[0]["free-page-reporting"] is True
    assert "free-page-reporting" not in parts(Case("pc", "balloon", "modern", "acpi-eject"), 1).devices[0]


class Reporting(Toy):
    scenario = Scenario("a balloon", devices=("balloon",), triggers=("suspend",), properties={"a": "b"})


def test_what_is_not_asked_for_is_as_the_named_advisory_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "registry", lambda: {"TOY-1": Reporting()})
    kernel = GuestKernelStub()
    named = request.Request(kernel="x", advisories=("TOY-1",), named=True)
    found = {axis: request._default(kernel, axis, named) for axis in ("device", "mode", "trigger", "machine")}  # type: ignore[arg-type]
    assert found == {"device": ("balloon",), "mode": ("modern",), "trigger": ("suspend",), "machine": ("pc",)}
    made = request._prepared(Plan((Case("pc", "balloon"), Case("pc", "disk")), ()), named)
    assert [case.properties for case in made.cases] == [(("a", "b"),), ()]
    unnamed = msgspec.structs.replace(named, named=False)
    assert request._default(kernel, "device", unnamed) == ("disk",)  # type: ignore[arg-type]


class GuestKernelStub:
    arch = "x86_64"
