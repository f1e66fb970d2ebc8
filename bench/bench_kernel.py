# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict on a kernel: against a process that only unpacks it, and against vmlinux-to-elf."""

import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.run import PYTHON, TOOL, Command, Group, Limit
from corpus.archive import cache_folder, fetch, offered
from ejectable.errors import Missing

__all__ = ["BENCHMARKS"]

FAMILY = "linux-image-6.12."
VERDICTS = (0, 2, 3)

# The reference: what any program in Python has to do first. The same library, the same file, nothing else.
UNPACK = """
import sys, zstandard
data = open(sys.argv[1], "rb").read()
start = data.find(b"\\x28\\xb5\\x2f\\xfd")
unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(data[start:])
assert unpacked[:4] == b"\\x7fELF", unpacked[:4]
"""

# The part of vmlinux-to-elf that finds the symbols, without writing an ELF file.
KALLSYMS_FINDER = str(Path(PYTHON).with_name("kallsyms-finder"))


@cache
def vmlinuz() -> str:
    """Debian's 6.12 kernel for amd64, the newest generic one, unpacked from its package."""
    names = [name for name in offered(FAMILY) if name.endswith("+deb12-amd64")]
    if not names:
        raise Missing("The archive offers no 6.12 kernel.", hint="The bench runs on Debian 12 with backports.")
    newest = max(names, key=lambda name: int(name.removeprefix(FAMILY).split("+")[0]))
    package = fetch(newest)
    folder = cache_folder() / "bench"
    image = folder / f"vmlinuz-{newest.removeprefix('linux-image-')}"
    if not image.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
            subprocess.run(["tar", "-xf", "-", "-C", aside, f"./boot/{image.name}"], stdin=archive.stdout, check=True)
            archive.wait()
            (Path(aside) / "boot" / image.name).rename(image)
    return str(image)


def _verdict() -> Sequence[Command]:
    return (
        Command("unpack in Python", (PYTHON, "-c", UNPACK, vmlinuz())),
        Command("ejectable kernel", (TOOL, "kernel", vmlinuz(), "--no-cache"), VERDICTS),
    )


def _symbols() -> Sequence[Command]:
    return (
        Command("ejectable kernel", (TOOL, "kernel", vmlinuz(), "--no-cache"), VERDICTS),
        Command("kallsyms-finder", (KALLSYMS_FINDER, vmlinuz())),
    )


BENCHMARKS = (
    Group(
        "kernel: a verdict on Debian's 6.12 vmlinuz",
        _verdict,
        (
            Limit("ejectable kernel", ratio=2.5, than="unpack in Python"),
            Limit("ejectable kernel", mebibytes=300),
        ),
    ),
    Group(
        "kernel: a verdict against vmlinux-to-elf's symbols alone",
        _symbols,
        (Limit("ejectable kernel", times_faster=5, than="kallsyms-finder"),),
    ),
)
