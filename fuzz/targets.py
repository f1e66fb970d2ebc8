# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets: functions that give hostile bytes to a parser.

A parser may refuse its input with a sentence (`BadInput`, `DamagedInput`, `Missing`), or accept it. Anything else
that comes out is a bug. To add a target, write a function here and name it in `TARGETS`; seeds come from
`fuzz/seeds.py` and from `fuzz/regressions/<target>/`.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ejectable.errors import BadInput, Missing

__all__ = ["TARGETS", "run_target"]

LIMIT = 16 << 20  # bytes that any one input may unpack to here


def decompression(data: bytes) -> None:
    """Whole streams, as in kernel images."""
    from ejectable.intake import decompress

    decompress(data, LIMIT, name="input")


def streams(data: bytes) -> None:
    """Streams read piece by piece, as in packages and logs."""
    import io

    from ejectable.intake import open_decompressed

    stream = open_decompressed(io.BytesIO(data), name="input")
    size = 0
    while size < LIMIT and (piece := stream.read(1 << 16)):
        size += len(piece)


def kernel_file(data: bytes) -> None:
    """Anything that `ejectable kernel` may be given as a file: images, modules, packages, archives."""
    from ejectable.intake import Limits
    from ejectable.kernel.open import Kernel, open_kernels

    with TemporaryDirectory(prefix="ejectable-fuzz-") as folder:
        path = Path(folder, "input")
        path.write_bytes(data)
        for kernel in open_kernels(path, limits=Limits(unpacked=LIMIT, in_memory=LIMIT)):
            if isinstance(kernel, Kernel):
                _ = (kernel.release, kernel.banner, kernel.build_id, kernel.config, kernel.vmlinux)
                kernel.module("virtio_pci")


def bundle(data: bytes) -> None:
    """What a boot loader takes: a UKI, a uImage, a FIT, an Android boot image; and kernels of other architectures."""
    from ejectable.kernel.formats.bundles import unwrap
    from ejectable.kernel.formats.foreign import architecture

    view = memoryview(data)
    architecture(view)
    unwrap(view, "input")


def module(data: bytes) -> None:
    """A module: ELF sections, symbols, relocations."""
    from ejectable.kernel.module import Module

    read = Module(data, name="input")
    read.symbols.at(0)
    _ = (read.modinfo, read.elf.build_id, read.image, read.btf)


def archive(data: bytes) -> None:
    """The archives inside of packages, without what they are packed with: the first byte says which one."""
    import io

    from ejectable.kernel.containers import cpio, tar

    stream, read = io.BytesIO(data[1:]), (tar.entries, cpio.initramfs_entries)[data[0] & 1 if data else 0]
    for entry in read(stream, name="input", limit=LIMIT):
        if entry.name.endswith("x"):
            entry.read()


def config(data: bytes) -> None:
    """A configuration, embedded and beside the image."""
    from ejectable.kernel.config import embedded_config, parse_config

    parse_config(data)
    embedded_config(memoryview(data), name="input")


def dwarf(data: bytes) -> None:
    """Debugging information."""
    from ejectable.kernel.types.dwarf import load_dwarf

    types = load_dwarf(data)
    types.struct("outer")
    types.member("outer", "vdev.vqs.next")
    types.enum("colour")


def btf(data: bytes) -> None:
    """Type information."""
    from ejectable.kernel.types.btf import load_btf

    types = load_btf(data)
    types.struct("list_head")
    types.member("virtio_pci_device", "vdev.vqs.next")
    types.enum("bool")


def kallsyms(data: bytes) -> None:
    """Symbol tables in a bare image."""
    from ejectable.kernel.program import Image, Segment
    from ejectable.kernel.symbols.kallsyms import read_kallsyms

    image = Image("x86_64", [Segment(0xFFFFFFFF81000000, memoryview(data), len(data), executable=True, name="image")])
    table = read_kallsyms(image)
    table.get("vp_del_vqs")
    table.at(0xFFFFFFFF81000000)


def source(data: bytes) -> None:
    """C source."""
    from ejectable.advisories.cve_2024_42134.repair import repaired
    from ejectable.advisories.cve_2024_42134.source import judge
    from ejectable.kernel.source import CSource

    read = CSource(data.decode("utf-8", "surrogateescape"))
    read.struct("virtio_pci_device")
    repaired(judge(read, CSource("struct virtio_pci_device { bool (*is_avq)(void); };"), read))


def crash(data: bytes) -> None:
    """Logs, as far as what is shown of them."""
    from ejectable.advisories import choose
    from ejectable.assess.crashes import Reading, judge
    from ejectable.crash.logs import read_bytes
    from ejectable.report.crash import as_document, as_text

    log = read_bytes(data, "input")
    judgements = tuple(judge(event, choose(())) for event in log.events)
    reading = Reading((log.source,), tuple(log.events), judgements, left_out=log.left_out)
    as_text(reading, colour=False, width=80, everything=True)
    as_document(reading)


def json_console(data: bytes) -> None:
    """Logs as clouds and log collectors wrap them: the first byte says how."""
    import base64
    import json

    from ejectable.crash.logs import read_bytes

    text = data[1:].decode("utf-8", "replace")
    wrapped = (
        {"ConsoleOutput": base64.b64encode(data[1:]).decode()},
        {"MESSAGE": text, "_TRANSPORT": "kernel"},
        {"log": text, "stream": "stdout"},
        [{"message": line} for line in text.split("\n")],
        {"hits": {"hits": [{"_source": {"message": text}}]}},
    )
    choice = data[0] if data else 0
    document = json.dumps(wrapped[choice % len(wrapped)], indent=2 if choice & 128 else None).encode()
    read_bytes(document if choice & 64 == 0 else document[: len(document) // 2], "input")


def record(data: bytes) -> None:
    """Records of changes: what a remedy is believed to have done."""
    from ejectable import host
    from ejectable.remedies.records import read_record

    try:
        found = read_record(data, host.Root("/"))
    except ValueError:
        return
    assert all(".." not in getattr(step, "path", "").split("/") for step in found.steps)


def verdict(data: bytes) -> None:
    """Files of the cache of verdicts."""
    import msgspec

    from ejectable.assess.verdicts import Kept
    from ejectable.model import SAFE

    try:
        kept = msgspec.json.decode(data, type=Kept)
    except ValueError:
        return
    assert not any(finding.status in SAFE and finding.doubts for finding in kept.report.findings)


def qmp(data: bytes) -> None:
    """What a QEMU may say on its control channel."""
    from qemu.qmp.error import QMPError
    from qemu.qmp.message import Message

    from ejectable.lab.qmp import Qmp

    channel = Qmp(started=0.0)
    for line in data.split(b"\n"):
        try:
            message = Message(line)
            dict(message)
        except (QMPError, ValueError, TypeError):  # the library hangs up
            continue
        channel.note("<-", message)


def guest(data: bytes) -> None:
    """What a guest may say on its console, with the words that our own program in it would use."""
    from ejectable.lab.console import Console
    from ejectable.lab.guest import parse_view
    from ejectable.lab.watch import CrashWatch

    console = Console("token", started=0.0, watch=CrashWatch("guest"))
    for start in range(0, len(data), 4096):
        console.feed(data[start : start + 4096])
    console.finish()
    parse_view(data.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        decompression,
        streams,
        archive,
        kernel_file,
        bundle,
        module,
        config,
        btf,
        dwarf,
        kallsyms,
        source,
        crash,
        json_console,
        record,
        verdict,
        qmp,
        guest,
    )
}


def run_target(name: str, data: bytes) -> None:
    """Run one input through a target; what the parser refuses in words is fine, everything else comes out."""
    try:
        TARGETS[name](data)
    except (BadInput, Missing):
        return
