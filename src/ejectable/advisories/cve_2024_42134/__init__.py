# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-42134: unplugging a legacy virtio device calls a null pointer."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, spared, unsure
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Recogniser
from ejectable.advisories.source_fix import SourceFix
from ejectable.model import UNPLUG, Device, Effect, Evidence, Finding, Justification, Operation

if TYPE_CHECKING:
    from ejectable.advisories.cve_2024_42134.experiment import Result
    from ejectable.advisories.live_part import LivePart
    from ejectable.experiment import Bench
    from ejectable.experiment import Result as Any_Result
    from ejectable.host import Facts
    from ejectable.kernel.config import Config
    from ejectable.kernel.program import Program

__all__ = ["ADVISORY", "NullCallback"]


class NullCallback(Advisory):
    """vp_del_vqs() calls the callback is_avq of every device, and only the probe of modern ones sets it."""

    id = "CVE-2024-42134"
    title = "hot-unplugging a legacy virtio device calls a null pointer in vp_del_vqs()"
    code = CodeUnder(
        functions=("vp_del_vqs",),
        module="virtio_pci",
        option="CONFIG_VIRTIO_PCI",
        menus=("CONFIG_VIRTIO_MENU", "CONFIG_PCI"),
        entry="virtio_pci_probe",
    )
    operations = always(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD, Operation.SUSPEND)
    remedies = (
        "upgrade", "force-legacy", "instance-type", "live", "source-patch", "detach-while-stopped", "panic-policy"
    )  # fmt: skip
    # Only a device that is driven as legacy takes the faulty path: a modern one that survives says nothing.
    scenario = Scenario("a legacy device", modes=("legacy", "forced-legacy"), driven="legacy")

    def experiment(self, bench: "Bench") -> "Result":
        """Unplug a legacy device in the machine."""
        from ejectable.advisories.cve_2024_42134.experiment import experiment

        return experiment(bench.program, bench.bounds)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """Whether it is a virtio PCI device that is *driven* as legacy."""
        del finding
        if device.bus != "virtio":
            return None
        if device.transport in ("", "unknown"):
            return unsure("what it is attached to could not be told")
        if device.transport != "pci":
            return spared(
                f"a virtio-{device.transport} device is not driven by virtio_pci, whose vp_del_vqs() is at fault"
            )
        if device.mode == "modern":
            return spared("driven as a modern device: the modern probe sets the callback")
        if device.mode != "legacy":
            return unsure("how it is driven could not be told")
        if device.driver is None:
            # Without a driver nobody set up queues, and vp_del_vqs() has none to walk; but a driver may come any time,
            # and whether one left queues behind cannot be seen from outside.
            return unsure("it is driven as legacy, but no driver is bound: it may have no queues to delete")
        return meets("driven as a legacy device", "vp_del_vqs() would call its null is_avq pointer")

    def concerns(self, device: Device) -> bool:
        """Any device on a PCI bus that has a driver."""
        return device.transport == "pci" and device.driver is not None

    def refutes(self, device: Device, finding: Finding) -> str | None:
        """A kernel that cannot drive a legacy device does not drive one."""
        if finding.justification != Justification.NOT_REACHED or device.transport != "pci" or device.mode != "legacy":
            return None
        return f"{device.name} is driven as legacy"

    def steps(self, facts: "Facts") -> Sequence[str]:
        """Where legacy driving is forced upon devices, to take that away."""
        if not (facts.forced_legacy or (facts.running and facts.running.force_legacy)):
            return ()
        where = ", ".join(facts.forced_legacy) or "the options of virtio_pci"
        return (f"Remove virtio_pci.force_legacy from {where} and reboot: transitional devices are then modern.",)

    @cached_property
    def signature(self) -> Recogniser:
        """The call of address 0 from vp_del_vqs(), and its look-alikes."""
        from ejectable.advisories.cve_2024_42134.signature import NullCall

        return NullCall(self.facts.look_alikes)

    @property
    def live(self) -> Any:
        """The hook of `fix live`, seen in memory."""
        from ejectable.advisories.cve_2024_42134 import live

        return live

    @property
    def source_fix(self) -> SourceFix:
        """The test in front of the call."""
        from ejectable.advisories.cve_2024_42134.source_fix import NullTest

        return NullTest()

    @property
    def live_part(self) -> "LivePart":
        """The pointer is filled while vp_del_vqs() runs."""
        from ejectable.advisories.cve_2024_42134.live_part import LIVE

        return LIVE

    def opinions(self, program: "Program", result: "Any_Result") -> Sequence[Evidence]:
        """The disassembly of the call, the member in the types, the functions that came with it."""
        from ejectable.advisories.cve_2024_42134.declarations import symbols, types
        from ejectable.advisories.cve_2024_42134.disassembly import disassembly

        return [found for found in (disassembly(program, result), types(program), symbols(program)) if found]

    def configured(self, options: "Config | None", program: "Program | None") -> Evidence | None:
        """CONFIG_VIRTIO_PCI and CONFIG_VIRTIO_PCI_LEGACY."""
        from ejectable.advisories.cve_2024_42134.declarations import config

        return config(options, program)

    def read_source(self, tree: Path) -> Evidence | None:
        """What drivers/virtio says."""
        from ejectable.advisories.cve_2024_42134.source import source

        return source(tree)

    def explain(self, program: "Program", result: "Any_Result") -> Sequence[str]:
        """The story of the run, and the instructions around the call."""
        from ejectable.advisories.cve_2024_42134.disassembly import annotated

        return annotated(program, result)

    def prepare(self) -> None:
        """Import what judging takes."""
        super().prepare()
        from ejectable.advisories.cve_2024_42134 import disassembly, source

        _ = disassembly, source


ADVISORY = NullCallback()
