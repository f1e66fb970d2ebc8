# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels, opened by the door that everybody uses: what they are, what is in them, what it costs."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ejectable.kernel import Kernel, open_kernels
from tests.kernel.synthetic import package_of

pytestmark = pytest.mark.kernels

AFFECTED_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
OLD, NEW = "6.1.0-50-cloud", "6.12.117+deb12-cloud"
FORMATS = {"amd64": "bzImage", "arm64": "Image"}
GIB = 1 << 30


def opened(release: str, architecture: str) -> Kernel:
    (kernel,) = open_kernels(package_of(f"{release}-{architecture}", architecture))
    assert isinstance(kernel, Kernel)
    return kernel


@pytest.fixture(scope="module", params=[(release, arch) for release in (OLD, NEW) for arch in FORMATS], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str, Kernel]:
    release, architecture = request.param
    return release, architecture, opened(release, architecture)


def test_a_kernel_says_what_it_is(case: tuple[str, str, Kernel]) -> None:
    release, architecture, kernel = case
    assert kernel.release == f"{release}-{architecture}"
    assert kernel.arch == AFFECTED_ARCHES[architecture]
    assert kernel.format == FORMATS[architecture]
    assert kernel.member == f"boot/vmlinuz-{release}-{architecture}"
    assert kernel.banner is not None
    assert kernel.banner.startswith(f"Linux version {release}-{architecture} (debian-kernel@lists.debian.org)")
    assert "#1 SMP" in kernel.banner
    assert kernel.build_id is not None
    assert len(bytes.fromhex(kernel.build_id)) == 20
    assert kernel.config is not None
    assert kernel.config["CONFIG_VIRTIO_PCI"] == ("m" if release == OLD else "y")
    assert kernel.doubts == ()


def test_virtio_pci_is_built_in_or_a_module(case: tuple[str, str, Kernel]) -> None:
    release, _, kernel = case
    vmlinux, module = kernel.vmlinux, kernel.module("virtio_pci")
    assert vmlinux is not None
    program = module if release == OLD else vmlinux
    assert program is not None
    assert (module is None) is (release == NEW)
    assert (vmlinux.symbols.function("vp_del_vqs") is None) is (release == OLD)
    assert kernel.builtin("virtio_pci") is (release == NEW)
    function = program.symbols.function("vp_del_vqs")
    assert function is not None
    assert program.image.segment_at(function.address).executable
    assert program.types is not None
    vdev = program.types.member("virtio_pci_device", "vdev")
    assert vdev is not None
    assert vdev.offset == 0


def test_a_symbol_of_the_image_stands_where_its_bytes_are(case: tuple[str, str, Kernel]) -> None:
    """The banner is at linux_banner: base address, segments and symbols agree."""
    _, _, kernel = case
    assert kernel.vmlinux is not None
    assert kernel.banner is not None
    banner = kernel.vmlinux.symbols.get("linux_banner")
    assert (banner is not None) is _has_symbols_of_data(kernel)
    if banner is None:
        return
    text = kernel.vmlinux.image.read(banner.address, len(kernel.banner))
    assert text.decode() == kernel.banner


def test_pointers_in_data_lead_to_functions(case: tuple[str, str, Kernel]) -> None:
    """pci_bus_type.match is pci_bus_match, also on arm64, where the file has zeroes there."""
    _, _, kernel = case
    vmlinux = kernel.vmlinux
    assert vmlinux is not None
    assert vmlinux.types is not None
    member = vmlinux.types.member("bus_type", "match")
    bus, match = vmlinux.symbols.get("pci_bus_type"), vmlinux.symbols.get("pci_bus_match")
    assert member is not None
    assert match is not None
    assert (bus is not None) is _has_symbols_of_data(kernel)
    if bus is None:
        return
    pointer = int.from_bytes(vmlinux.image.read(bus.address + member.offset, 8), "little")
    # With CFI or landing pads a pointer may lead to a stub; in these builds it does not.
    assert pointer == match.address


def _has_symbols_of_data(kernel: Kernel) -> bool:
    assert kernel.config is not None
    return kernel.config["CONFIG_KALLSYMS_ALL"] == "y"


def test_the_changelog_of_a_package_names_its_version() -> None:
    package = opened(NEW, "amd64").package
    assert package is not None
    assert package.changelog is not None
    assert package.version.startswith("6.12.117-")
    assert " (6.12.117" in package.changelog.splitlines()[0]


def test_loose_files_are_put_together(tmp_path: Path) -> None:
    """A vmlinuz with its module beside it, in one folder, is one kernel; another release's module is not its."""
    for version in (OLD, "6.1.0-54-cloud"):
        subprocess.run(["dpkg-deb", "-x", package_of(f"{version}-amd64", "amd64"), tmp_path / version], check=True)
    flat = tmp_path / "flat"
    flat.mkdir()
    (tmp_path / OLD / f"boot/vmlinuz-{OLD}-amd64").rename(flat / "vmlinuz")
    ours = next((tmp_path / OLD).rglob("virtio_pci.ko"))
    theirs = next((tmp_path / "6.1.0-54-cloud").rglob("virtio_pci.ko"))
    ours.rename(flat / "virtio_pci.ko")
    (kernel,) = open_kernels(flat)
    assert isinstance(kernel, Kernel)
    module = kernel.module("virtio_pci")
    assert module is not None
    assert module.types is not None
    (alone,) = open_kernels(flat / "virtio_pci.ko")
    assert isinstance(alone, Kernel)
    assert alone.vmlinux is None
    lent = alone.module("virtio_pci")
    assert lent is not None
    assert lent.types is not None, "its kernel lies beside it and lends its types"
    theirs.rename(flat / "virtio_pci.ko")
    (kernel,) = open_kernels(flat / "vmlinuz")
    assert isinstance(kernel, Kernel)
    assert kernel.module("virtio_pci") is None
    assert any("6.1.0-54-cloud-amd64" in doubt.detail for doubt in kernel.module_doubts("virtio_pci"))
    both = list(open_kernels(flat))
    assert [kernel.release for kernel in both if isinstance(kernel, Kernel)] == [f"{OLD}-amd64", "6.1.0-54-cloud-amd64"]


def test_a_bomb_costs_less_than_a_gibibyte_and_half_a_minute(tmp_path: Path) -> None:
    """A boot image and an initramfs of some kilobytes that would unpack to gigabytes."""
    bomb = tmp_path / "bomb"
    maker = """
        import bz2, gzip, lzma, sys, struct
        import zstandard
        from tests.kernel.synthetic import bzimage
        size = 3 << 30
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        block = bytes(1 << 24)
        pieces = [packer.compress(block) for _ in range(size >> 24)] + [packer.flush()]
        payload = b"".join(pieces) + struct.pack("<I", size & 0xFFFFFFFF)
        open(sys.argv[1], "wb").write(bzimage(payload))
        open(sys.argv[1] + ".zst", "wb").write(payload)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(maker), bomb], check=True)
    for path in (bomb, tmp_path / "bomb.zst"):
        reader = """
            import sys
            from ejectable.errors import BadInput
            from ejectable.kernel import open_kernels
            try:
                for kernel in open_kernels(sys.argv[1]):
                    kernel.banner
            except BadInput as error:
                print(error)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(reader), path],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB)),
        )
        assert done.stdout.startswith(str(path))
