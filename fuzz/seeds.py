# SPDX-License-Identifier: GPL-2.0-or-later
"""Small valid inputs of every format, so that the fuzzer starts inside of each parser instead of at its door."""

import gzip
import struct
import subprocess
import zlib
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


def _bundles() -> Iterator[bytes]:
    kernel = synthetic.bzimage(synthetic.pack(synthetic.vmlinux(4096), Compression.GZIP))
    sections = b"".join(
        struct.pack("<8sIIII16x", name, size, 0x1000, size, start)
        for name, size, start in ((b".linux", len(kernel), 0x200), (b".initrd", 64, 0x200 + len(kernel)))
    )
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, 2, 0, 0)
    yield (head + sections).ljust(0x200, b"\0") + kernel + bytes(64)
    header = struct.pack(">IIIIIIIBBBB32s", 0x27051956, 0, 0, len(kernel), 0, 0, zlib.crc32(kernel), 5, 24, 2, 0, b"k")
    yield header[:4] + struct.pack(">I", zlib.crc32(header)) + header[8:] + kernel
    yield (
        struct.pack("<8sIIIIIIIII", b"ANDROID!", len(kernel), 0, 64, 0, 0, 0, 0, 2048, 0).ljust(2048, b"\0")
        + kernel.ljust(-(-len(kernel) // 2048) * 2048, b"\0")
        + bytes(64)
    )

    def node(name: bytes, *inside: bytes) -> bytes:
        padded = name + bytes(4 - len(name) % 4)
        return struct.pack(">I", 1) + padded + b"".join(inside) + struct.pack(">I", 2)

    strings = b"type\0data\0"
    image = node(b"kernel", struct.pack(">III", 3, 8, 0) + b"kernel\0\0", struct.pack(">III", 3, 8, 5) + b"contents")
    tree = node(b"", node(b"images", image)) + struct.pack(">I", 9)
    numbers = (0xD00DFEED, 40 + len(tree) + len(strings), 40, 40 + len(tree), 0, 17, 16, 0, len(strings), len(tree))
    yield struct.pack(">10I", *numbers) + tree + strings


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


def _json_logs() -> Iterator[bytes]:
    for number, log in enumerate(_logs()):
        yield bytes([number & 7]) + log[:2000]


def _records() -> Iterator[bytes]:
    head = b'{"format":2,"number":1,"remedy":"panic-policy","started":"2026-01-01T00:00:00Z","state":"open","steps":['
    value = b'"path":"/proc/sys/kernel/panic_on_oops","real":"/proc/sys/kernel/panic_on_oops"'
    file = b'"path":"/etc/sysctl.d/90-x.conf","real":"/etc/sysctl.d/90-x.conf","folders":["/etc/sysctl.d"]'
    yield head + b"]}"
    yield head + b'{"type":"set",' + value + b',"before":"MA==","after":"MQ=="}]}'
    yield head + b'{"type":"write",' + file + b',"before":null,"after":"YQ==","mode_before":null}]}'
    yield b'{"number":1,"remedy":"live","started":"x","state":"open","steps":[{"type":"command","argv":["a"]}]}'


def _verdicts() -> Iterator[bytes]:
    doubts = b',"doubts":[{"kind":"bound","where":"w","detail":"d"}]'
    report = b'{"path":"p","member":null,"release":"6.8","banner":null,"arch":"x86_64","build_id":"ab",'
    report += b'"format":"bzImage","virtio_pci":"module","findings":['
    for status, doubt in ((b"affected", b""), (b"fixed", b""), (b"fixed", doubts)):
        finding = b'{"advisory":"CVE-2024-42134","status":"' + status + b'","justification":null,"reason":"r",'
        finding += b'"evidence":[],"conflict":false' + doubt + b"}"
        yield b'{"key":["k"],"report":' + report + finding + b"]}}"


def _qmp() -> Iterator[bytes]:
    yield b'{"event":"DEVICE_DELETED","data":{"device":"d0","path":"/x"},"timestamp":{"seconds":1,"microseconds":2}}'
    yield b'{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}},"capabilities":[]}}\n{"return":{},"id":"1"}'


def _guests() -> Iterator[bytes]:
    yield b"token: hello 6.1.0\r\ntoken: up\r\ntoken: mark 3 trigger\r\ntoken: mark by 17\r\ntoken: = 4 done\r\n"
    for log in _logs():
        yield b"token: mark 1 boot\n" + log[:3000]


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "decompression": _packed,
    "streams": _packed,
    "archive": _archives,
    "kernel_file": _kernel_files,
    "bundle": _bundles,
    "module": _objects,
    "config": _configs,
    "btf": _btf,
    "dwarf": _objects,
    "kallsyms": _kallsyms,
    "source": _source,
    "crash": _logs,
    "json_console": _json_logs,
    "record": _records,
    "verdict": _verdicts,
    "qmp": _qmp,
    "guest": _guests,
}


def seeds(target: str) -> Iterator[bytes]:
    """Valid inputs for a target; none for one that only real kernels could feed."""
    yield from SEEDS.get(target, lambda: iter(()))()


def write_seeds(target: str, folder: Path) -> None:
    """Put the seeds of a target into a folder, for libFuzzer."""
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed-{number}").write_bytes(seed)
