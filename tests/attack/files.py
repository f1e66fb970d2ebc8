# SPDX-License-Identifier: GPL-2.0-or-later
"""What people and storms do to one file: cut, flip, wrap, rename, replace, mix with the fixed twin."""

import base64
import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.attack.harness import Context, Transformation

__all__ = ["FILES", "replaced_meanwhile", "rewritten"]

NAMES = ("kernel", "download(1)", "x.ko.xz", "a b.rpm", "vmlinuz")


def rewritten(path: Path, data: bytes) -> Path:
    """A new file in the place of the old one, which may be a link to what others use."""
    path.unlink()
    path.write_bytes(data)
    return path


def _cut(path: Path, context: Context) -> Path:
    data = path.read_bytes()
    return rewritten(path, data[: context.chance.randrange(len(data) or 1)])


def _cut_near_the_end(path: Path, context: Context) -> Path:
    data = path.read_bytes()
    return rewritten(path, data[: max(0, len(data) - context.chance.randrange(1, 2000))])


def _beginning_lost(path: Path, context: Context) -> Path:
    data = path.read_bytes()
    return rewritten(path, data[context.chance.randrange(1, 5000) :])


def _flipped(path: Path, context: Context) -> Path:
    data = bytearray(path.read_bytes())
    for _ in range(8):
        if data:
            data[context.chance.randrange(len(data))] ^= 1 << context.chance.randrange(8)
    return rewritten(path, bytes(data))


def _zeroed_block(path: Path, context: Context) -> Path:
    data = bytearray(path.read_bytes())
    at = context.chance.randrange(max(len(data) - 4096, 1))
    data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    return rewritten(path, bytes(data))


def _twice(path: Path, _context: Context) -> Path:
    return rewritten(path, path.read_bytes() * 2)


def _garbage_behind(path: Path, context: Context) -> Path:
    return rewritten(path, path.read_bytes() + context.chance.randbytes(5000))


def _empty(path: Path, _context: Context) -> Path:
    return rewritten(path, b"")


def _renamed(path: Path, context: Context) -> Path:
    return path.rename(path.with_name(context.chance.choice(NAMES)))


def _in_capitals(path: Path, _context: Context) -> Path:
    return path.rename(path.with_name(path.name.upper()))


def _wrapped(pack: Callable[[bytes], bytes], suffix: str) -> Callable[[Path, Context], Path]:
    def apply(path: Path, _context: Context) -> Path:
        target = path.with_name(path.name + suffix)
        target.write_bytes(pack(path.read_bytes()))
        path.unlink()
        return target

    return apply


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def _in_tar(path: Path, _context: Context) -> Path:
    target = path.with_name(f"{path.name}.tar")
    with tarfile.open(target, "w") as archive:
        archive.add(path, arcname=path.name)
    path.unlink()
    return target


def _in_zip(path: Path, _context: Context) -> Path:
    target = path.with_name(f"{path.name}.zip")
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(path, arcname=path.name)
    path.unlink()
    return target


def _fixed_before(path: Path, context: Context) -> Path:
    """A stale verdict: the fixed one was judged under the same name, with the same size and times."""
    mine, about = path.read_bytes(), path.stat()
    shutil.copyfile(context.twin(), rewritten(path, b""))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    context.ask(path)
    with path.open("r+b") as file:  # the same inode
        file.write(mine)
        file.truncate()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return path


def _fixed_in_front(path: Path, context: Context) -> Path | None:
    """Two archives, one behind the other, as an initramfs may be: what comes last counts."""
    if not path.name.startswith("initrd"):  # of other files only the beginning counts, and that would be fixed
        return None
    return rewritten(path, context.twin().read_bytes() + path.read_bytes())


def _through_a_link(path: Path, _context: Context) -> Path:
    link = path.with_name("link")
    link.symlink_to(path.name)
    return link


def _in_a_folder_with_the_fixed(path: Path, context: Context) -> Path:
    folder = path.with_name("both")
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    shutil.copyfile(context.twin(), folder / "a" / path.name)
    path.rename(folder / "b" / path.name)
    return folder


def _crlf(path: Path, _context: Context) -> Path:
    """As a transfer in text mode has it."""
    return rewritten(path, path.read_bytes().replace(b"\n", b"\r\n"))


def _half_of_each(path: Path, context: Context) -> Path:
    """Its beginning, and the end of the fixed one."""
    mine, theirs = path.read_bytes(), context.twin().read_bytes()
    half = len(mine) // 2
    return rewritten(path, mine[:half] + theirs[half:])


def _in_a_tar_in_a_zip(path: Path, context: Context) -> Path:
    return _in_zip(_in_tar(path, context), context)


def _twice_compressed(path: Path, _context: Context) -> Path:
    target = path.with_name(f"{path.name}.gz.xz")
    target.write_bytes(lzma.compress(gzip.compress(path.read_bytes(), 1, mtime=0), preset=0))
    path.unlink()
    return target


def _in_one_archive_with_the_fixed(path: Path, context: Context) -> Path:
    target = path.with_name("both.tar.gz")
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        archive.add(context.twin(), arcname=f"a/{path.name}")
        archive.add(path, arcname=f"b/{path.name}")
    path.unlink()
    return target


def _two_of_one_name_in_an_archive(path: Path, context: Context) -> Path:
    """As `tar -r` has it after an update: unpacking it gives the last one."""
    target = path.with_name("updated.tar")
    with tarfile.open(target, "w") as archive:
        archive.add(context.twin(), arcname=path.name)
        archive.add(path, arcname=path.name)
    path.unlink()
    return target


def _duplicated(path: Path, _context: Context) -> Path:
    """In a folder, with itself under another name."""
    folder = path.with_name("twice")
    folder.mkdir()
    path.rename(folder / path.name)
    shutil.copyfile(folder / path.name, folder / f"copy-of-{path.name}")
    return folder


def _unreadable(path: Path, _context: Context) -> Path:
    path.chmod(0)
    return path


def replaced_meanwhile(mine: Path, theirs: Path, ask: Callable[[], int]) -> None:
    """Asks while the fixed one is put in its place and taken away, over and over; at the end it is as it was."""
    about, kept, fixed = mine.stat(), mine.with_name(f"{mine.name}~"), mine.with_name(f"{mine.name}.fixed~")
    shutil.copyfile(mine, kept)
    shutil.copyfile(theirs, fixed)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for source in (fixed, kept):
                with contextlib.suppress(OSError):
                    shutil.copyfile(source, mine)
                    os.utime(mine, ns=(about.st_atime_ns, about.st_mtime_ns))
                over.wait(0.004)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(3):
            ask()
    finally:
        over.set()
        thread.join()
    shutil.copyfile(kept, mine)
    os.utime(mine, ns=(about.st_atime_ns, about.st_mtime_ns))
    kept.unlink()
    fixed.unlink()


def _replaced_during_a_run(path: Path, context: Context) -> Path:
    path = rewritten(path, path.read_bytes())
    replaced_meanwhile(path, context.twin(), lambda: context.ask(path))
    return path


FILES = tuple(
    Transformation(name, ("file", "log"), apply, as_nobody=apply is _unreadable)
    for name, apply in (
        ("cut", _cut),
        ("cut near the end", _cut_near_the_end),
        ("beginning lost", _beginning_lost),
        ("bits flipped", _flipped),
        ("a block zeroed", _zeroed_block),
        ("twice in a row", _twice),
        ("garbage behind", _garbage_behind),
        ("empty", _empty),
        ("renamed", _renamed),
        ("in capitals", _in_capitals),
        ("gzip", _wrapped(lambda data: gzip.compress(data, 1, mtime=0), ".gz")),
        ("xz", _wrapped(lambda data: lzma.compress(data, preset=0), ".xz")),
        ("bzip2", _wrapped(lambda data: bz2.compress(data, 1), ".bz2")),
        ("zstd", _wrapped(_zstd, ".zst")),
        ("in a tar", _in_tar),
        ("in a zip", _in_zip),
        ("the fixed one judged before", _fixed_before),
        ("the fixed one in front", _fixed_in_front),
        ("through a link", _through_a_link),
        ("in a folder with the fixed one", _in_a_folder_with_the_fixed),
        ("bytes of a text transfer", _crlf),
        ("half of it, half of the fixed one", _half_of_each),
        ("base64", _wrapped(base64.encodebytes, ".b64")),
        ("twice compressed", _twice_compressed),
        ("in a tar in a zip", _in_a_tar_in_a_zip),
        ("in one archive with the fixed one", _in_one_archive_with_the_fixed),
        ("two of one name in an archive", _two_of_one_name_in_an_archive),
        ("duplicated under another name", _duplicated),
        ("may not be read", _unreadable),
        ("replaced during a run", _replaced_during_a_run),
    )
)
