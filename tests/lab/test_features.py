# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare image is asked by its code and symbols; a configuration that is not there is not "off"."""

import shutil
from pathlib import Path

import pytest

from ejectable.kernel.config import Config
from ejectable.lab.features import FUNCTIONS, PROBES, Features
from ejectable.lab.kernels import open_kernel
from ejectable.lab.matrix import plan
from tests.lab.test_matrix import ONE, REST

MISSPELT = "CONFIG_NO_SUCH_OPTION"


def test_without_symbols_only_a_line_that_says_no_is_a_no() -> None:
    features = Features(Config({"CONFIG_SUSPEND": "n", "CONFIG_HOTPLUG_PCI_ACPI": "y"}))
    assert (features.has("CONFIG_SUSPEND"), features.has("CONFIG_HOTPLUG_PCI_ACPI")) == (False, True)
    assert (
        features.has("CONFIG_HOTPLUG_PCI_PCIE") is features.has(MISSPELT) is features.has_driver("virtio_blk") is None
    )
    assert Features().has("CONFIG_SUSPEND") is None


@pytest.mark.kernels
@pytest.mark.parametrize(
    "beside", [None, b"", b"CONFIG_64BIT=y\nCONFIG_HOTPLU", b"# CONFIG_HOTPLUG_PCI_ACPI is not set\n"]
)
def test_a_bare_image_has_what_its_symbols_show_whatever_config_lies_beside_it(
    stock_image: Path, tmp_path: Path, beside: bytes | None
) -> None:
    image = shutil.copy(stock_image, tmp_path / "vmlinuz-6.1")
    if beside is not None:
        (tmp_path / "config-6.1").write_bytes(beside)
    kernel = open_kernel(str(image))
    assert {option: kernel.features.has(option) for option in FUNCTIONS} == {
        "CONFIG_HOTPLUG_PCI_ACPI": True,
        "CONFIG_HOTPLUG_PCI_PCIE": True,
        "CONFIG_HOTPLUG_PCI_SHPC": None,  # it may be a module of its own
        "CONFIG_SUSPEND": True,
        "CONFIG_VIRTIO_PCI_LEGACY": None,  # virtio_pci is a module of it, and that is not here
    }
    assert not any(kernel.features.has_driver(module) for module in PROBES)
    (skipped,) = plan(kernel, {**ONE, **REST}).skipped
    assert (
        skipped.reason
        == "virtio_pci is not built into this kernel, and no module of that name is beside it (--modules)"
    )
