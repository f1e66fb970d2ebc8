# SPDX-License-Identifier: GPL-2.0-or-later
"""Small valid inputs of every format, so that the fuzzer starts inside of each parser instead of at its door."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from ejectable.intake import Compression
from tests.kernel import synthetic

__all__ = ["seeds", "write_seeds"]

PACKED = tuple(compression for compression in Compression if compression is not Compression.NONE)


def _packed() -> Iterator[bytes]:
    for compression in PACKED:
        yield synthetic.pack(b"a few bytes, and the same again: a few bytes" * 40, compression)


def _kernel_files() -> Iterator[bytes]:
    bare = synthetic.vmlinux(8192)
    flat = synthetic.arm64_image(8192)
    files = {"boot/vmlinuz-6.0.0": synthetic.bzimage(synthetic.pack(bare, Compression.GZIP)), "boot/config-6.0.0": b""}
    yield from (bare, flat, files["boot/vmlinuz-6.0.0"], synthetic.pack(flat, Compression.LZ4))
    yield synthetic.zboot(synthetic.pack(flat, Compression.GZIP))
    yield synthetic.deb(files)
    yield synthetic.cpio_newc(files)


def _btf() -> Iterator[bytes]:
    # One int, one struct with a member of it: include/uapi/linux/btf.h.
    strings = b"\0int\0list_head\0next\0"
    integer = struct.pack("<IIII", 1, 1 << 24, 4, 32)
    structure = struct.pack("<IIIIII", 5, 4 << 24 | 1, 4, 15, 1, 0)
    types = integer + structure
    yield struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def _logs() -> Iterator[bytes]:
    folder = Path(__file__).parent.parent / "tests" / "crash" / "fixtures"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.read_bytes()


def _source() -> Iterator[bytes]:
    yield b"void vp_del_vqs(struct virtio_device *vdev)\n{\n\tif (a->b && a->b(vdev, 1)) /* } */\n\t\tcontinue;\n}\n"


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "decompression": _packed,
    "streams": _packed,
    "kernel_file": _kernel_files,
    "btf": _btf,
    "source": _source,
    "crash": _logs,
}


def seeds(target: str) -> Iterator[bytes]:
    """Valid inputs for a target; none for one that only real kernels could feed."""
    yield from SEEDS.get(target, lambda: iter(()))()


def write_seeds(target: str, folder: Path) -> None:
    """Put the seeds of a target into a folder, for libFuzzer."""
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed-{number}").write_bytes(seed)
