# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages, initramfs images and folders lead to the kernels in them, and climb nowhere."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, DamagedInput, Missing
from ejectable.intake import Compression, Limits, file_input
from ejectable.kernel import Kernel, Unreadable, open_kernels
from ejectable.kernel.containers import cpio, deb, tar
from ejectable.kernel.containers.archive import Archive, Entry, clean_name, keep_modules
from tests.intake.test_files import as_nobody, public_folder
from tests.kernel import synthetic
from tests.kernel.synthetic import RELEASE, refusal, tool

__all__ = ["public_folder"]

SMALL = Limits(unpacked=16 << 20, in_memory=8 << 20)
CONFIG = b"CONFIG_FROM_PACKAGE=y\n"
CHANGELOG = "linux (6.8.0-42.42) noble; urgency=medium\n\n  * virtio-pci: Check if is_avq is NULL\n"


@pytest.fixture(scope="module")
def image() -> bytes:
    return synthetic.bzimage(synthetic.pack(synthetic.vmlinux(), Compression.GZIP))


@pytest.fixture(scope="module")
def members(image: bytes) -> dict[str, bytes]:
    import gzip

    folder = f"lib/modules/{RELEASE}"
    return {
        f"boot/config-{RELEASE}": CONFIG,
        f"boot/vmlinuz-{RELEASE}": image,
        f"{folder}/kernel/drivers/net/veth.ko.xz": b"not looked at",
        f"{folder}/modules.builtin": b"kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n",
        "usr/share/doc/linux-image-test/changelog.Debian.gz": gzip.compress(CHANGELOG.encode(), mtime=0),
    }


def only(path: Path, limits: Limits = SMALL) -> Kernel:
    """The one kernel that is there."""
    (kernel,) = open_kernels(path, limits=limits)
    assert isinstance(kernel, Kernel)
    return kernel


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.XZ, Compression.ZSTD])
def test_a_deb_holds_a_kernel_its_modules_and_its_story(
    compression: Compression, members: dict[str, bytes], tmp_path: Path
) -> None:
    kernel = only(written(tmp_path / "linux.deb", synthetic.deb(members, compression)))
    assert kernel.member == f"boot/vmlinuz-{RELEASE}"
    assert (kernel.release, kernel.arch, kernel.build_id) == (RELEASE, "x86_64", synthetic.BUILD_ID)
    assert kernel.banner == synthetic.BANNER.strip()
    assert kernel.config == {"CONFIG_FROM_PACKAGE": "y"}
    assert kernel.builtin("virtio-pci") is True
    assert kernel.builtin("virtio_net") is False
    assert kernel.module_names() == {"veth"}
    assert kernel.module("virtio_pci") is None
    assert kernel.package is not None
    assert (kernel.package.name, kernel.package.version) == ("linux-image-test", "6.8.0-42.42")
    assert kernel.package.changelog == CHANGELOG


@pytest.mark.parametrize("payload", ["w9.gzdio", "w6.xzdio", "w3.zstdio"])
def test_an_rpm_holds_a_kernel_its_modules_and_its_story(
    payload: str, members: dict[str, bytes], tmp_path: Path
) -> None:
    kernel = only(_rpm(members, payload, tmp_path))
    assert kernel.member == f"boot/vmlinuz-{RELEASE}"
    assert (kernel.release, kernel.arch, kernel.build_id) == (RELEASE, "x86_64", synthetic.BUILD_ID)
    assert kernel.config == {"CONFIG_FROM_PACKAGE": "y"}
    assert kernel.builtin("virtio_pci") is True
    assert kernel.package is not None
    assert (kernel.package.name, kernel.package.version) == ("kernel-core", "2:6.8.0-42")
    assert kernel.package.changelog is not None
    assert "- virtio-pci: Check if is_avq is NULL" in kernel.package.changelog


def _rpm(members: dict[str, bytes], payload: str, folder: Path) -> Path:
    """Built by rpmbuild from these files."""
    root = folder / "files"
    for name, data in members.items():
        written(root / name, data)
    spec = folder / "kernel.spec"
    spec.write_text(
        f"%define _binary_payload {payload}\n%define _build_id_links none\n%global debug_package %{{nil}}\n"
        "%define __os_install_post %{nil}\n"
        "Name: kernel-core\nEpoch: 2\nVersion: 6.8.0\nRelease: 42\nSummary: x\nLicense: GPL\nBuildArch: noarch\n"
        f"%description\nx\n%install\ncp -r {root}/. %{{buildroot}}/\n%files\n/\n"
        "%changelog\n* Tue Nov 24 2026 Tests <t@example.org> - 6.8.0-42\n- virtio-pci: Check if is_avq is NULL\n"
    )
    command = [tool("rpmbuild", "rpm"), "-bb", "--quiet", "--define", f"_topdir {folder}/top", str(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)})
    assert done.returncode == 0, done.stderr
    return next((folder / "top").rglob("*.rpm"))


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD, Compression.LZ4])
def test_an_initramfs_is_archives_in_a_row(compression: Compression, tmp_path: Path) -> None:
    """Early microcode, never compressed; zeroes; then the rest, compressed or not."""
    early = synthetic.cpio_newc({"kernel/x86/microcode/GenuineIntel.bin": bytes(2000)})
    main = synthetic.cpio_newc(
        {
            "init": b"#!/bin/sh\n",
            f"usr/lib/modules/{RELEASE}/modules.builtin": b"kernel/drivers/virtio/virtio_pci.ko\n",
            f"usr/lib/modules/{RELEASE}/kernel/drivers/net/veth.ko": b"",
        }
    )
    if compression is not Compression.NONE:
        main = synthetic.pack(main, compression, with_size=False)
    kernel = only(written(tmp_path / "initrd.img", early + bytes(512) + main))
    assert kernel.vmlinux is None
    assert kernel.release == RELEASE
    assert kernel.builtin("virtio_pci") is True
    assert kernel.module_names() == {"veth"}


@pytest.mark.parametrize("first", [each for each in Compression if each is not Compression.NONE])
def test_archives_follow_each_other_however_each_is_packed(first: Compression, tmp_path: Path) -> None:
    """init/initramfs.c, unpack_to_rootfs(): packed, plain, zeroes, packed otherwise, and a boot configuration."""
    modules = [synthetic.cpio_newc({f"lib/modules/{RELEASE}/kernel/{name}.ko": name.encode()}) for name in "abc"]
    second = Compression.XZ if first is not Compression.XZ else Compression.GZIP
    packed = [synthetic.pack(modules[0], first, with_size=False), modules[1]]
    packed += [bytes(200), synthetic.pack(modules[2], second, with_size=False), b"a = 1\n", b"#BOOTCONFIG\n"]
    kernel = only(written(tmp_path / "initrd.img", b"".join(packed)))
    assert kernel.module_names() == {"a", "b", "c"}


def test_packages_without_a_kernel_say_so(tmp_path: Path) -> None:
    headers = {"usr/include/linux/virtio_pci.h": b"", "usr/src/linux-headers-6.8/Makefile": b""}
    for name in ("linux-libc-dev", "linux-headers-6.8"):
        path = written(tmp_path / f"{name}.deb", synthetic.deb(headers, Compression.XZ, package=name))
        with pytest.raises(BadInput, match=f"the package {name} holds no kernel") as caught:
            list(open_kernels(path, limits=SMALL))
        assert caught.value.hint is not None
    initramfs = synthetic.cpio_newc({"init": b"#!/bin/sh\n"})
    with pytest.raises(BadInput, match="it holds no kernel"):
        list(open_kernels(written(tmp_path / "initrd", initramfs), limits=SMALL))


def test_the_modules_of_a_package_without_an_image_are_a_kernel_too(tmp_path: Path) -> None:
    """Ubuntu ships linux-modules-RELEASE apart from linux-image-RELEASE."""
    data = {f"lib/modules/{RELEASE}/modules.builtin": b"kernel/drivers/virtio/virtio_pci.ko\n"}
    kernel = only(written(tmp_path / "linux-modules.deb", synthetic.deb(data)))
    assert (kernel.vmlinux, kernel.release, kernel.format) == (None, RELEASE, "module")
    assert kernel.builtin("virtio_pci") is True


def test_names_cannot_climb(image: bytes, tmp_path: Path) -> None:
    assert clean_name("../../etc/passwd") == "etc/passwd"
    assert clean_name("./boot/../../x") == "x"
    assert clean_name("/boot//./vmlinuz") == "boot/vmlinuz"
    before = sorted(tmp_path.parent.rglob("*"))
    climbing = {"../../x": b"climbed", "../../../boot/vmlinuz-x": image, f"lib/modules/../../{'a/' * 40}x": b""}
    package = tmp_path / "x.deb"
    package.write_bytes(synthetic.deb(climbing))
    assert only(package).member == "boot/vmlinuz-x"
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, package])


def test_long_names_are_read_in_both_dialects(tmp_path: Path) -> None:
    import io
    import tarfile

    name = "lib/modules/" + "long/" * 40 + "name"
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=dialect) as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        stream.seek(0)
        assert [(e.name, e.size) for e in tar.entries(stream, name="x", limit=1 << 20)] == [(name, 3)]
    del tmp_path


def test_an_archive_is_read_no_further_than_asked(image: bytes) -> None:
    met: list[str] = []

    def walk() -> Iterator[Entry]:
        for name, data in (("boot/vmlinuz-1", image), ("lib/modules/1/a.ko", b"a"), ("lib/modules/1/b.ko", b"b")):
            met.append(name)
            yield Entry(name, len(data), partial(bytes, data))

    archive = Archive(walk, name="x", limits=SMALL)
    assert archive.find(re.compile("boot/.*")) == "boot/vmlinuz-1"
    assert archive.read("boot/vmlinuz-1") == image
    assert met == ["boot/vmlinuz-1"]
    assert list(archive.find_all(re.compile(r".*\.ko"))) == ["lib/modules/1/a.ko", "lib/modules/1/b.ko"]
    assert archive.read("lib/modules/1/a.ko") == b"a"


def test_modules_that_will_be_asked_for_cost_one_walk_only() -> None:
    walks: list[int] = []

    def walk() -> Iterator[Entry]:
        walks.append(1)
        for name in ("kernel/a-one.ko.xz", "kernel/b_two.ko", "kernel/c_three.ko"):
            yield Entry(name, 1, partial(bytes, b"x"))

    keep_modules(["a_one", "b-two"])
    archive = Archive(walk, name="x", limits=SMALL)
    assert len(list(archive.find_all(re.compile(".*")))) == 3
    assert [archive.read(name) for name in ("kernel/a-one.ko.xz", "kernel/b_two.ko")] == [b"x", b"x"]
    assert len(walks) == 1
    assert archive.read("kernel/c_three.ko") == b"x"
    assert len(walks) == 2


def test_members_add_up_to_the_limit(tmp_path: Path) -> None:
    many = {f"usr/share/{i}": bytes(1 << 19) for i in range(40)}
    package = written(tmp_path / "x.deb", synthetic.deb(many, Compression.XZ))
    assert package.stat().st_size < 1 << 16
    with pytest.raises(DamagedInput, match="more than the limit"):
        list(open_kernels(package, limits=SMALL))


def test_packages_cut_off_at_every_4_kib_are_read_or_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    made = {
        "x.deb": synthetic.deb(members),
        "xz.deb": synthetic.deb(members, Compression.XZ),
        "zst.deb": synthetic.deb(members, Compression.ZSTD),
        "initrd": synthetic.cpio_newc(members),
        "initrd.gz": synthetic.pack(synthetic.cpio_newc(members), Compression.GZIP),
        "x.rpm": _rpm(members, "w6.xzdio", tmp_path).read_bytes(),
    }
    for name, data in made.items():
        path = tmp_path / name
        refused = 0
        for end in range(0, len(data), 4096):
            path.write_bytes(data[:end])
            error = refusal(partial(_read_all, path))
            if error is not None:
                assert error.message.startswith(str(path))
                refused += 1
        assert refused, name


def _read_all(path: Path) -> None:
    for kernel in open_kernels(path, limits=SMALL):
        assert isinstance(kernel, Kernel)
        _ = kernel.release, kernel.banner, kernel.build_id, kernel.config, kernel.builtin("virtio_pci")
        _ = kernel.module_names(), kernel.package and kernel.package.changelog


@settings(deadline=None, derandomize=True, max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 17), st.integers(0, 7)), min_size=1, max_size=6))
@pytest.mark.parametrize("kind", ["deb", "cpio"])
def test_flipped_bits_in_archives_are_read_or_refused(
    kind: str, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    small = {f"boot/config-{RELEASE}": CONFIG, f"lib/modules/{RELEASE}/modules.builtin": b"a.ko\n"}
    data = bytearray(synthetic.deb(small) if kind == "deb" else synthetic.cpio_newc(small))
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / f"flipped-{kind}"
    path.write_bytes(data)
    error = refusal(partial(_read_all, path))
    assert error is None or error.message.startswith(str(path))


def test_a_folder_gives_its_kernels_and_what_is_broken_in_it(
    image: bytes, members: dict[str, bytes], tmp_path: Path
) -> None:
    for name, data in members.items():
        written(tmp_path / "root" / name, data)
    (tmp_path / "root/boot/vmlinuz").symlink_to(f"vmlinuz-{RELEASE}")
    (tmp_path / "root/loop").symlink_to(tmp_path)
    written(tmp_path / "root/boot/vmlinuz-6.1.broken", image[:5000])
    written(tmp_path / "root/boot/System.map", b"")
    written(tmp_path / "root/boot/vmlinuz-6.2.hmac", b"")
    os.mkfifo(tmp_path / "root/boot/vmlinuz-fifo")
    written(tmp_path / "root/linux-libc-dev.deb", synthetic.deb({"usr/include/x.h": b""}))
    found = list(open_kernels(tmp_path / "root", limits=SMALL))
    kernels = [kernel for kernel in found if isinstance(kernel, Kernel)]
    broken = {Path(item.path).name: str(item.error) for item in found if isinstance(item, Unreadable)}
    assert [kernel.release for kernel in kernels] == [RELEASE]
    assert kernels[0].config == {"CONFIG_FROM_PACKAGE": "y"}
    assert kernels[0].builtin("virtio_pci") is True
    assert set(broken) == {"vmlinuz-6.1.broken", "vmlinuz-fifo"}
    assert "cut off" in broken["vmlinuz-6.1.broken"]
    assert "FIFO" in broken["vmlinuz-fifo"]


def test_a_folder_that_holds_none_or_may_not_be_read_says_so(tmp_path: Path, public_folder: Path) -> None:
    with pytest.raises(BadInput, match="without a kernel in it"):
        list(open_kernels(tmp_path))
    with pytest.raises(Missing, match="no such file"):
        list(open_kernels(tmp_path / "nothing"))
    locked = public_folder / "locked"
    locked.mkdir()
    locked.chmod(0)
    with as_nobody(), pytest.raises(Missing, match="may not be read"):
        list(open_kernels(locked))


def test_a_source_tree_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    written(tmp_path / "linux/Makefile", b"# SPDX\nVERSION = 6\nPATCHLEVEL = 8\nSUBLEVEL = 0\nEXTRAVERSION = -rc1\n")
    written(tmp_path / "linux/drivers/virtio/virtio.c", b"")
    for path in (tmp_path, tmp_path / "linux"):
        kernel = only(path)
        assert (kernel.format, kernel.source_tree, kernel.release) == ("source", tmp_path / "linux", "6.8.0-rc1")
        assert (kernel.vmlinux, kernel.arch, kernel.banner, kernel.build_id) == (None, None, None, None)


def test_a_build_tree_gives_what_was_built_and_its_source(image: bytes, tmp_path: Path) -> None:
    written(tmp_path / "Makefile", b"VERSION = 6\nPATCHLEVEL = 8\n")
    written(tmp_path / "drivers/virtio/virtio.c", b"")
    written(tmp_path / "arch/x86/boot/bzImage", image)
    written(tmp_path / "modules.builtin", b"drivers/virtio/virtio_pci.ko\n")
    written(tmp_path / ".config", CONFIG)
    built, source = open_kernels(tmp_path, limits=SMALL)
    assert isinstance(built, Kernel)
    assert isinstance(source, Kernel)
    assert (built.format, built.release, source.format) == ("bzImage", RELEASE, "source")
    assert built.config == {"CONFIG_FROM_PACKAGE": "y"}
    assert built.builtin("virtio_pci") is True


def test_absurd_archives_are_refused() -> None:
    import io

    for field in (b"FFFFFFFF", b"zzzzzzzz", b"7FFFFFFF"):
        archive = bytearray(synthetic.cpio_newc({"a": b"b"}))
        for at in (54, 94):  # the size, the size of the name
            broken = archive.copy()
            broken[at : at + 8] = field
            with pytest.raises(DamagedInput):
                list(cpio.entries(io.BytesIO(bytes(broken)), name="x", limit=1 << 20))
    with pytest.raises(DamagedInput):
        list(tar.entries(io.BytesIO(b""), name="x", limit=1 << 20))


def test_an_ar_archive_that_is_no_package_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "lib.a", synthetic.ar({"x.o": b""}))
    with pytest.raises(BadInput, match="no Debian package"):
        list(open_kernels(path))
    with pytest.raises(BadInput, match="expected a Debian package"):
        deb.control_fields(file_input(written(tmp_path / "x", b"something")), SMALL)
