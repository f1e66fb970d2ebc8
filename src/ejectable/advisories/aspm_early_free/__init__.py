# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-58093: a PCIe switch with several functions is unplugged."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "AspmEarlyFree"]


class AspmEarlyFree(Advisory):
    """pcie_aspm_exit_link_state() frees the state of a link with any function of the device at its end."""

    id = "CVE-2024-58093"
    title = "unplugging a PCIe switch with several functions uses freed memory"
    code = CodeUnder(functions=("pcie_aspm_exit_link_state",), option="CONFIG_PCIEASPM", menus=("CONFIG_PCI",))
    proven = False
    operations = always(Effect.CORRUPTION, *UNPLUG)
    remedies = (
        *USUAL,
        Workaround(
            "no-aspm",
            "Without active state power management links have no state to free.",
            ("pcie_aspm=off",),
            cost="a reboot with this on the kernel's command line; more power is drawn",
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Take each of two functions away from one link."""
        from ejectable.advisories.aspm_early_free.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """The upstream port of a switch that has other functions beside it."""
        del finding
        if device.bus != "pci" or device.kind != "bridge" or "functions" not in device.attributes:
            return None
        if device.hotpluggable is False:
            return None
        if device.hotpluggable is None:
            return unsure("whether it can be unplugged could not be told")
        return meets(
            f"a bridge with {device.attributes['functions']} functions", "the state of its link would be freed early"
        )

    @property
    def signature(self) -> Signature:
        """A fault in the code that configures links, under a removal."""
        return Signature(
            kinds=("gpf", "paging-fault", "null-deref", "kasan"),
            at=r"pcie_config_aspm_\w{1,20}|pcie_update_aspm_capable|pcie_aspm_\w{1,40}",
            needs=("pcie_aspm_exit_link_state", r"pci_remove_bus_device|pci_stop_and_remove_\w{1,20}|pciehp_\w{1,40}"),
            told="the state of a link was used after it was freed",
        )


ADVISORY = AspmEarlyFree()
