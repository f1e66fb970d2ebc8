# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that was built without the driver: what it takes to say so."""

import pytest

from ejectable.advisories import registry
from ejectable.kernel import Kernel
from ejectable.kernel.config import Config, parse_config
from ejectable.kernel.program import Image, Program, Symbol, SymbolTable
from ejectable.model import Status

OFF = b"CONFIG_PCI=y\nCONFIG_VIRTIO_MENU=y\n# CONFIG_VIRTIO_PCI is not set\n"
NONE: frozenset[str] = frozenset()
LISTED = frozenset({"veth", "virtio_net"})


class WithoutDriver(Kernel):
    """An image with symbols and without the driver, and what came with it."""

    format = "vmlinux"

    def __init__(self, config: bytes, *, embedded: bool, modules: frozenset[str], builtin: bool | None) -> None:
        super().__init__("vmlinux")
        self._options = parse_config(config)
        self._options.embedded = embedded
        self._modules = modules
        self._builtin = builtin

    @property
    def config(self) -> Config:
        return self._options

    @property
    def vmlinux(self) -> Program:
        return Program("vmlinux", Image("x86_64", ()), SymbolTable([Symbol("start_kernel", 1 << 63, 16, "T")]), None)

    def module_names(self) -> frozenset[str]:
        return self._modules

    def builtin(self, name: str) -> bool | None:
        del name
        return self._builtin


@pytest.mark.parametrize(
    ("config", "embedded", "modules", "builtin", "status"),
    [
        (OFF, True, NONE, None, Status.NOT_AFFECTED),
        (OFF, False, LISTED, False, Status.NOT_AFFECTED),
        (b"# CONFIG_PCI is not set\n", True, NONE, None, Status.NOT_AFFECTED),
        (b"CONFIG_PCI=y\n# CONFIG_VIRTIO_MENU is not set\n", True, NONE, None, Status.NOT_AFFECTED),
        (OFF, False, NONE, None, Status.UNKNOWN),  # a file beside it, and no lists of what was built
        (OFF, False, LISTED, None, Status.UNKNOWN),
        (OFF, False, LISTED | {"virtio_pci"}, False, Status.UNKNOWN),
        (b"CONFIG_PCI=y\n", True, LISTED, False, Status.UNKNOWN),  # it breaks off
        (b"CONFIG_PCI=y\nCONFIG_VIRTIO_MENU=y\nCONFIG_VIRTIO_PCI=m\n", True, LISTED, False, Status.UNKNOWN),
    ],
)
def test_absence_takes_the_image_its_configuration_and_its_lists(
    config: bytes, embedded: bool, modules: frozenset[str], builtin: bool | None, status: Status
) -> None:
    kernel = WithoutDriver(config, embedded=embedded, modules=modules, builtin=builtin)
    assert registry()["CVE-2024-42134"].probe(kernel).status is status
