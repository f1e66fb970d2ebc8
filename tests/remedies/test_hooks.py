# SPDX-License-Identifier: GPL-2.0-or-later
"""One template repairs several defects: each hook stops the call that goes wrong, and leaves those that go well."""

from functools import cache

import pytest

from corpus.archive import fetch
from corpus.live_hooks import HEADERS, Acted, Beside, affected_module, types_of
from ejectable.advisories.aspm_early_free import live_part as aspm
from ejectable.advisories.cleantx_spin import live_part as cleantx
from ejectable.advisories.mana_remove_null import live_part as mana
from ejectable.advisories.vq_wrong_index import live_part as wrong_index
from ejectable.experiment import Scene
from ejectable.kernel.machine import Bounds, Object
from ejectable.kernel.module import Module
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.kernel.program import Program

pytestmark = pytest.mark.kernels

LEFT_ALONE = Acted(skips=False, value=0, changes=False)


@cache
def shipped(release: str, module: str) -> Program:
    """The program of Debian's own module, or the kernel that it is built into."""
    kernel = next(iter(open_kernels(fetch(f"linux-image-{release}"))))
    assert isinstance(kernel, Kernel)
    program = kernel.module(module) or kernel.vmlinux
    assert program is not None
    return program


@cache
def built(advisory: str) -> Program:
    """The code as it was before the fix."""
    path = affected_module(advisory)
    content = path.read_bytes()
    module = Module(content, name=path.name)
    return Program(path.stem, module.image, module.symbols, types_of(HEADERS, content))


def function(scene: Scene, name: str) -> int:
    """The address of a function of the program."""
    found = scene.program.symbols.function(name)
    assert found is not None
    return found.address


def on_pci(scene: Scene, **members: int | Object) -> Object:
    """A PCI device, on the bus of that name."""
    pdev = scene.new("pci_dev").set(**members)
    pdev.sub("dev").bus = scene.new("bus_type", name=scene.text("pci"))
    return pdev


class TestMana:
    """CVE-2026-53297, as Debian shipped it."""

    def laid_out(self) -> tuple[Scene, Object, Object]:
        scene = Scene(shipped("6.12.107+deb12-cloud-amd64", "mana"), bounds=Bounds())
        context = scene.new("gdma_context")
        pdev = on_pci(scene)
        pdev.sub("dev").driver_data = context
        context.dev = pdev.sub("dev")
        return scene, context, context.sub("mana")

    def test_a_device_that_was_let_go_of_crashes_without_it_and_is_left_alone_with_it(self) -> None:
        scene, _, gone = self.laid_out()
        fault = scene.run("mana_remove", gone, 0).fault
        assert fault is not None
        assert fault.address < 4096
        assert Beside(scene, mana.LIVE).act(gone) == Acted(skips=True, value=0, changes=False)

    def test_a_device_that_is_there_is_removed_as_ever(self) -> None:
        scene, context, device = self.laid_out()
        device.gdma_context = context
        device.driver_data = scene.new("mana_context")
        assert Beside(scene, mana.LIVE).act(device) == LEFT_ALONE

    def test_what_is_no_device_of_this_layout_is_left_to_the_function(self) -> None:
        scene, context, gone = self.laid_out()
        context.dev = on_pci(scene).sub("dev")  # whose driver data leads elsewhere
        assert Beside(scene, mana.LIVE).act(gone) == LEFT_ALONE


class TestCleantx:
    """virtio-net-cleantx-spin, as Debian shipped it."""

    def laid_out(self, **members: int) -> tuple[Scene, Object]:
        scene = Scene(shipped("6.12.107+deb12-cloud-amd64", "virtio_ring"), bounds=Bounds(), follow=("virtqueue_*",))
        queue = scene.new("vring_virtqueue", notify=function(scene, "virtqueue_kick")).set(**members)
        used = scene.alloc()
        scene.machine.memory.write(used + 2, (5).to_bytes(2, "little"))  # struct vring_used: the index
        ring = queue.sub("split.vring")
        ring.used, ring.avail, ring.num = used, scene.alloc(), 256
        queue.sub("vq.list").init()
        return scene, queue.sub("vq")

    def test_a_broken_queue_that_would_be_polled_for_ever_is_answered_for(self) -> None:
        scene, queue = self.laid_out(broken=1)
        outcome = scene.run("virtqueue_enable_cb_delayed", queue)
        assert (outcome.exit, (outcome.value or 0) & 0xFF) == ("returned", 0)  # "poll once more", for ever
        assert Beside(scene, cleantx.LIVE).act(queue) == Acted(skips=True, value=1, changes=False)

    def test_a_queue_that_works_is_left_alone(self) -> None:
        scene, queue = self.laid_out(broken=0)
        assert Beside(scene, cleantx.LIVE).act(queue) == LEFT_ALONE

    @pytest.mark.parametrize("wrong", [{"packed_ring": 7}, {"notify": 0x1234}])
    def test_what_is_no_queue_of_this_layout_is_left_alone(self, wrong: dict[str, int]) -> None:
        scene, queue = self.laid_out(broken=1)
        scene.at("vring_virtqueue", int(queue.__index__())).set(**wrong)
        assert Beside(scene, cleantx.LIVE).act(queue) == LEFT_ALONE


class TestAspm:
    """CVE-2024-58093, with the fix taken out of Debian's source."""

    def laid_out(self) -> tuple[Scene, Object, Object, Object]:
        scene = Scene(built("CVE-2024-58093"), bounds=Bounds())
        bus, port, link = scene.new("pci_bus"), on_pci(scene), scene.new("pcie_link_state")
        first, second = on_pci(scene, bus=bus), on_pci(scene, bus=bus, devfn=1)
        bus.self = port
        port.link_state = link
        link.set(pdev=port, downstream=first, root=link)
        link.sub("sibling").init()
        return scene, port, first, second

    def test_the_link_goes_with_any_function_without_it_and_with_the_downstream_one_alone_with_it(self) -> None:
        scene, port, first, second = self.laid_out()
        beside = Beside(scene, aspm.LIVE)
        assert beside.act(second) == Acted(skips=True, value=0, changes=False)
        assert beside.act(first) == LEFT_ALONE
        assert scene.run("pcie_aspm_exit_link_state", second).called("kfree")
        assert port.link_state == 0, "freed while its downstream function is there"
        assert beside.act(first) == LEFT_ALONE, "there is no link any more"

    def test_a_link_of_another_port_is_left_alone(self) -> None:
        scene, port, _, second = self.laid_out()
        scene.at("pcie_link_state", int(port.link_state)).set(pdev=on_pci(scene))
        assert Beside(scene, aspm.LIVE).act(second) == LEFT_ALONE


class TestWrongIndex:
    """CVE-2026-64457, with the fix taken out of Debian's source."""

    def laid_out(self, *slots: int | None) -> tuple[Scene, Object, list[Object]]:
        """Queues 0, 1, ... in slots of the table, as the caller's names left holes."""
        scene = Scene(built("CVE-2026-64457"), bounds=Bounds(), follow=("vp_del_vq", "vp_is_avq"))
        pdev = on_pci(scene)
        device = scene.new("virtio_pci_device", pci_dev=pdev, del_vq=function(scene, "del_vq"))
        device.set(setup_vq=function(scene, "setup_vq"), config_vector=function(scene, "vp_config_vector"))
        vdev = device.sub("vdev")
        vdev.config = scene.new("virtio_config_ops", del_vqs=function(scene, "vp_del_vqs"))
        vdev.sub("dev").parent = pdev.sub("dev")
        pdev.sub("dev").driver_data = device
        vdev.sub("vqs").init()
        table = scene.alloc()
        device.vqs = table
        queues = []
        for index, slot in enumerate(slots):
            queue = scene.new("virtqueue", index=index, vdev=vdev)
            vdev.sub("vqs").append(queue.sub("list"))
            record = scene.new("virtio_pci_vq_info", vq=queue)
            record.sub("node").init()
            scene.machine.memory.write(table + 8 * (slot or 0), int(record.__index__()).to_bytes(8, "little"))
            queues.append(queue)
        return scene, device, queues

    def owners(self, scene: Scene, device: Object, count: int) -> list[int]:
        """The queue that each slot's record is of; 0 for an empty slot."""
        table = int(device.vqs)
        records = [scene.word(table + 8 * slot) for slot in range(count)]
        return [int(scene.at("virtio_pci_vq_info", one).vq) if one else 0 for one in records]

    def test_a_hole_crashes_without_it_and_each_record_is_where_it_is_looked_for_with_it(self) -> None:
        scene, device, _ = self.laid_out(0, 2, 3)
        fault = scene.run("vp_del_vqs", device.sub("vdev")).fault
        assert fault is not None
        assert fault.address < 4096

        scene, device, queues = self.laid_out(0, 2, 3)
        assert Beside(scene, wrong_index.LIVE).act(device.sub("vdev")) == Acted(skips=False, value=0, changes=True)
        assert self.owners(scene, device, 4) == [*(int(one.__index__()) for one in queues), 0]
        assert scene.run("vp_del_vqs", device.sub("vdev")).fault is None

    def test_a_table_without_holes_is_left_as_it_is(self) -> None:
        scene, device, _ = self.laid_out(0, 1, 2)
        assert Beside(scene, wrong_index.LIVE).act(device.sub("vdev")) == LEFT_ALONE

    def test_a_device_with_an_admin_queue_is_left_alone(self) -> None:
        scene, device, _ = self.laid_out(0, 2)
        device.sub("admin_vq").info = scene.new("virtio_pci_vq_info")
        assert Beside(scene, wrong_index.LIVE).act(device.sub("vdev")) == LEFT_ALONE
