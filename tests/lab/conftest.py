# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels for guests: Debian's stock one, and the module with the faulty callback for it. Skips say what is missing."""

import os
import shutil
from pathlib import Path

import pytest

from corpus.archive import fetch
from corpus.modules import faulty_module
from ejectable.errors import Missing
from ejectable.lab.kernels import member_of_package

RELEASE = "6.1.0-50-cloud-amd64"


def _absent(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def qemu() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        _absent("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
    if not Path("/bin/busybox").exists():
        _absent("busybox is not installed (apt-get install busybox-static)")


@pytest.fixture(scope="session")
def stock(qemu: None) -> Path:
    try:
        return fetch(f"linux-image-{RELEASE}")
    except Missing as error:
        _absent(f"{error}")
        raise


@pytest.fixture(scope="session")
def stock_image(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare image of the stock kernel, in a folder of its own."""
    image = tmp_path_factory.mktemp("bare") / "vmlinuz"
    image.write_bytes(member_of_package(str(stock), (f"boot/vmlinuz-{RELEASE}",), 64 << 20))
    return image


@pytest.fixture(scope="session")
def faulty(qemu: None) -> Path:
    """A folder with one module in it: virtio_pci.ko with the callback put back."""
    try:
        return faulty_module(RELEASE).parent
    except Missing as error:
        _absent(f"{error}")
        raise
