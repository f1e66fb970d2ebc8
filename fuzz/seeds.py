# SPDX-License-Identifier: GPL-2.0-or-later
"""Small valid inputs of every format, so that the fuzzer starts inside of each parser instead of at its door."""

import gzip
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ejectable.intake import Compression
from tests.kernel import kallsyms_tables, synthetic

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


# A little of everything that a module has: code with relocations, data, types in DWARF.
PIECE = b"""
struct list_head { struct list_head *next, *prev; };
enum colour { RED, GREEN = 5, BLUE = -1 };
struct device { int index; struct list_head vqs; const char *const name; };
struct outer { struct device vdev; union { int legacy; long modern; }; int low : 3; int (*ask)(int); int names[7]; };
struct outer outer = {{ 1 }};
int asked(struct outer *o, enum colour c) { return o->ask ? o->ask(c) + outer.vdev.index : sizeof(*o); }
const char info[] __attribute__((section(".modinfo"))) = "name=piece";
"""


def _objects() -> Iterator[bytes]:
    for options in ("-O1 -gdwarf-5", "-O0 -gdwarf-4"):
        with TemporaryDirectory() as folder:
            made = Path(folder, "piece.o")
            subprocess.run(["gcc", "-xc", "-c", *options.split(), "-", "-o", made], input=PIECE, check=True)
            yield made.read_bytes()


def _archives() -> Iterator[bytes]:
    files = {"boot/vmlinux": b"content " * 70, "lib/modules/6.0.0/" + "long/" * 40 + "a.ko": b"x", "empty": b""}
    yield b"\0" + synthetic.tar_of(files)
    yield b"\1" + synthetic.cpio_newc(files)
    yield b"\1" + synthetic.cpio_newc(files) + bytes(512) + synthetic.pack(synthetic.cpio_newc(files), Compression.GZIP)


def _configs() -> Iterator[bytes]:
    yield synthetic.CONFIG
    yield b"IKCFG_ST" + gzip.compress(synthetic.CONFIG, mtime=0) + b"IKCFG_ED"


def _kallsyms() -> Iterator[bytes]:
    for layout, encoding in kallsyms_tables.LAYOUTS:
        entries = [entry for entry in kallsyms_tables.many(300) if entry[0] >= kallsyms_tables.BASE]
        yield kallsyms_tables.tables(entries, layout, encoding, at=kallsyms_tables.BASE)


def _logs() -> Iterator[bytes]:
    folder = Path(__file__).parent.parent / "tests" / "crash" / "fixtures"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.read_bytes()


def _source() -> Iterator[bytes]:
    yield b"void vp_del_vqs(struct virtio_device *vdev)\n{\n\tif (a->b && a->b(vdev, 1)) /* } */\n\t\tcontinue;\n}\n"


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "decompression": _packed,
    "streams": _packed,
    "archive": _archives,
    "kernel_file": _kernel_files,
    "module": _objects,
    "config": _configs,
    "btf": _btf,
    "dwarf": _objects,
    "kallsyms": _kallsyms,
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
