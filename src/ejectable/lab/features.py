# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel was built with: asked of its configuration and, where that does not say yes, of its symbols.

An option that no line of a configuration mentions is not off: the file may be missing, or break off.
"""

from collections.abc import Callable
from functools import cached_property

from ejectable.errors import EjectableError
from ejectable.kernel.config import Config
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.lab.inside import inside

__all__ = ["Features"]

# Option → functions that are there where it is on, in a kernel's own image. They are called through pointers or from
# other files, so that no compiler makes them disappear.
FUNCTIONS = {
    "CONFIG_HOTPLUG_PCI_ACPI": ("acpiphp_enumerate_slots",),  # drivers/pci/hotplug/acpiphp_glue.c
    "CONFIG_HOTPLUG_PCI_PCIE": ("pciehp_probe", "pcie_hp_init"),  # drivers/pci/hotplug/pciehp_core.c
    "CONFIG_HOTPLUG_PCI_SHPC": ("shpc_probe", "shpc_init"),  # drivers/pci/hotplug/shpchp_{core,hpc}.c
    "CONFIG_SUSPEND": ("suspend_devices_and_enter", "pm_suspend"),  # kernel/power/suspend.c
    "CONFIG_VIRTIO_PCI_LEGACY": ("virtio_pci_legacy_probe",),  # drivers/virtio/virtio_pci_legacy.c
}
# Option → the module that its code may be in instead: then the image says nothing of it.
MODULES = {"CONFIG_HOTPLUG_PCI_SHPC": "shpchp", "CONFIG_VIRTIO_PCI_LEGACY": "virtio_pci"}
DEPENDENCIES = {option: ("CONFIG_HOTPLUG_PCI",) for option in FUNCTIONS if option.startswith("CONFIG_HOTPLUG_PCI_")}
EVERYWHERE = ("start_kernel", "kernel_init")  # init/main.c: the one is global, the other is not
# Module → its probe function, which the driver is registered with.
PROBES = {
    "virtio_pci": "virtio_pci_probe",
    "virtio_blk": "virtblk_probe",
    "virtio_net": "virtnet_probe",
    "virtio_scsi": "virtscsi_probe",
    "virtio_rng": "virtrng_probe",
    "virtio_balloon": "virtballoon_probe",
    "virtio_console": "virtcons_probe",
    "vmw_vsock_virtio_transport": "virtio_vsock_probe",
}


class Features:
    """What is known of how a kernel was built. `None` is the answer where nothing tells."""

    def __init__(self, config: Config | None = None, code: Callable[[], ImageKernel] | None = None) -> None:
        """`code` reads the image; it is called in a confined process."""
        self._given = config
        self._code = code

    @cached_property
    def config(self) -> Config:
        """The options that are known: of the file that came with the kernel, else of what is embedded in it."""
        if self._given is not None or self._code is None:
            return self._given or Config()
        code = self._code
        try:
            return Config(inside(lambda: dict(code().config or {}), into=dict[str, str]))
        except EjectableError:  # whoever runs it will see whether it is damaged
            return Config()

    def has(self, option: str) -> bool | None:
        """Whether the kernel, or a module of it, was built with this option."""
        said = self.config.says(option, *DEPENDENCIES.get(option, ()))
        if said in ("y", "m"):
            return True
        shown = self._any_of(FUNCTIONS[option]) if option in FUNCTIONS else None
        if shown is False and option in MODULES and self.has_driver(MODULES[option]) is not True:
            shown = None
        return (False if said == "n" else None) if shown is None else shown

    def has_driver(self, module: str) -> bool | None:
        """Whether the driver that this module holds elsewhere is built in."""
        return self._any_of((PROBES[module],)) if module in PROBES else None

    def _any_of(self, functions: tuple[str, ...]) -> bool | None:
        """Whether one of these is in the image; `None` where the image has no symbols to look among."""
        if self._there is None:
            return None
        return any(name in self._there for name in functions)

    @cached_property
    def _there(self) -> frozenset[str] | None:
        """Which of the functions that are asked about are in the image."""
        if self._code is None:
            return None
        code = self._code
        try:
            return inside(lambda: _functions(code()), into=frozenset[str] | None)
        except EjectableError:
            return None


def _functions(code: ImageKernel) -> frozenset[str] | None:
    """Those of the functions named above that the kernel has; `None` where its table of symbols is not whole."""
    symbols = code.vmlinux.symbols
    # What is missing from a table says something only where the table is whole, local functions included.
    if not all(symbols.function(name) is not None for name in EVERYWHERE):
        return None
    asked = (*(name for names in FUNCTIONS.values() for name in names), *PROBES.values())
    return frozenset(name for name in asked if symbols.function(name) is not None)
