# SPDX-License-Identifier: GPL-2.0-or-later
"""What people do to trees: copied without links, dereferenced, emptied, damaged, mixed with the fixed twin."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.attack.files import FILES, rewritten
from tests.attack.harness import Context, Kind, Transformation

__all__ = ["TREES"]

LARGEST = 256 << 20  # bytes; the tool reads no more of an image by default
Step = Callable[[Path, Context], Path | None]
OUTSIDE = "../" * 30 + "etc/passwd"
IMAGE_NAMES = ("vmlinuz", "Image")


def _entries(top: Path) -> list[Path]:
    return sorted(Path(folder) / name for folder, folders, files in os.walk(top) for name in (*folders, *files))


def _files(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.is_file() and not path.is_symlink()]


def _readable(top: Path) -> list[Path]:
    """The files that fit into memory: one may have been made huge before."""
    return [path for path in _files(top) if path.stat().st_size < LARGEST]


def _links(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.is_symlink()]


def _folders(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.is_dir() and not path.is_symlink()]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# The whole tree


def _without_links(top: Path, _context: Context) -> Path | None:
    links = _links(top)
    for link in links:
        link.unlink()
    return top if links else None


def _dereferenced(top: Path, _context: Context) -> Path | None:
    """As `cp -rL` does it, within bounds: links to folders become copies, one level deep."""
    links = [(link, Path(os.path.realpath(link))) for link in _links(top)]
    if not links:
        return None
    for link, target in links:
        inside = str(target).startswith(f"{top.resolve()}{os.sep}") and target.exists()
        link.unlink()
        if inside and target.is_file():
            shutil.copyfile(target, link)
        elif inside and target not in link.parent.resolve().parents and target != link.parent.resolve():
            shutil.copytree(target, link, symlinks=True)
        elif inside:
            link.mkdir()
    return top


def _only_files(top: Path, context: Context) -> Path:
    """As `find -type f` and zip have it: no links, no empty folders."""
    _without_links(top, context)
    for folder in reversed(_folders(top)):
        if not any(folder.iterdir()):
            folder.rmdir()
    return top


def _proc_emptied(top: Path, _context: Context) -> Path | None:
    """As tar has it: files of procfs and sysfs say that they are empty."""
    there = [path for part in ("proc", "sys") if (top / part).is_dir() for path in _files(top / part)]
    for path in there:
        rewritten(path, b"")
    return top if there else None


def _links_absolute(top: Path, _context: Context) -> Path | None:
    links = _links(top)
    for link in links:
        target = Path(os.path.normpath(link.parent / link.readlink()))
        link.unlink()
        link.symlink_to(target)
    return top if links else None


def _in_capitals(top: Path, _context: Context) -> Path:
    """As a file system without letter case may have it."""
    for path in reversed(_entries(top)):
        path.rename(path.with_name(path.name.upper()))
    return top


def _text(change: Callable[[bytes], bytes]) -> Callable[[Path, Context], Path]:
    def apply(top: Path, _context: Context) -> Path:
        for path in _files(top):
            if path.stat().st_size < 65536 and (data := path.read_bytes()).isascii():
                rewritten(path, change(data))
        return top

    return apply


def _nested(top: Path, _context: Context) -> Path:
    """One folder too deep, or too high: the root is not where it is looked for."""
    deeper = top.with_name(f"{top.name}-outer")
    deeper.mkdir()
    top.rename(deeper / "root")
    return deeper


# One entry of it, by chance


def _one(pick: Callable[[Path], list[Path]], change: Callable[[Path], object]) -> Step:
    def apply(top: Path, context: Context) -> Path | None:
        found = pick(top)
        if not found:
            return None
        change(context.chance.choice(found))
        return top

    return apply


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        _remove(path)
        make(path)

    return change


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            end.bind(path.name[:100])
        finally:
            os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST * 4)


def _folder_emptied(path: Path) -> None:
    for entry in path.iterdir():
        _remove(entry)


def _by_file(name: str) -> Step:
    """The transformation of a file, on one that holds code."""
    step = next(step for step in FILES if step.name == name)

    def apply(top: Path, context: Context) -> Path | None:
        found = [path for path in _readable(top) if path.name.startswith(IMAGE_NAMES) or ".ko" in path.name]
        if not found:
            return None
        step.apply(context.chance.choice(found), context)
        return top

    return apply


# With the fixed twin beside it


def _modules(top: Path) -> Iterator[Path]:
    yield from (path for path in _readable(top) if path.name.startswith("virtio_pci.ko"))


def _beside(place: str) -> Step:
    """The fixed module in another folder of the same release."""

    def apply(top: Path, context: Context) -> Path | None:
        mine, theirs = next(_modules(top), None), next(_modules(context.twin()), None)
        if mine is None or theirs is None:
            return None
        release = next(parent for parent in mine.parents if parent.parent.name == "modules")
        target = release / place / mine.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(theirs, target)
        return top

    return apply


def _listed_in_modules_dep(top: Path, context: Context) -> Path | None:
    """The fixed module lies about, in a folder that depmod does not look at first; modules.dep names the affected."""
    if _beside("aaa")(top, context) is None:
        return None
    mine = next(path for path in _modules(top) if "aaa" not in path.parts)
    release = next(parent for parent in mine.parents if parent.parent.name == "modules")
    (release / "modules.dep").write_text(f"{mine.relative_to(release)}:\n")
    return top


def _affected_in_updates(top: Path, context: Context) -> Path | None:
    """The fixed module in its usual place, and the affected one where depmod looks first."""
    mine, theirs = next(_modules(top), None), next(_modules(context.twin()), None)
    if mine is None or theirs is None:
        return None
    release = next(parent for parent in mine.parents if parent.parent.name == "modules")
    (release / "updates").mkdir(exist_ok=True)
    mine.rename(release / "updates" / mine.name)
    shutil.copyfile(theirs, mine)
    return top


def _compressed_twin(top: Path, context: Context) -> Path | None:
    """The fixed module beside the affected one, compressed: which of the two is it?"""
    import lzma

    mine, theirs = next(_modules(top), None), next(_modules(context.twin()), None)
    if mine is None or theirs is None:
        return None
    mine.with_name(f"{mine.name}.xz").write_bytes(lzma.compress(theirs.read_bytes(), preset=0))
    return top


def _two_builds(top: Path, context: Context) -> Path:
    """Both builds of one release in one folder: `old` is affected, `new` is fixed."""
    folder = top.with_name("builds")
    folder.mkdir()
    shutil.copytree(context.twin(), folder / "new", symlinks=True)
    top.rename(folder / "old")
    return folder


def _fixed_before(top: Path, context: Context) -> Path | None:
    """The fixed module was judged in the same place, then the affected one put back."""
    mine, theirs = next(_modules(top), None), next(_modules(context.twin()), None)
    if mine is None or theirs is None:
        return None
    data, about = mine.read_bytes(), mine.stat()
    rewritten(mine, theirs.read_bytes())
    os.utime(mine, ns=(about.st_atime_ns, about.st_mtime_ns))
    context.ask(top)
    with mine.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(mine, ns=(about.st_atime_ns, about.st_mtime_ns))
    return top


def _claims_built_in(top: Path, _context: Context) -> Path | None:
    """modules.builtin names virtio_pci, which is a module."""
    mine = next(_modules(top), None)
    if mine is None:
        return None
    release = next(parent for parent in mine.parents if parent.parent.name == "modules")
    (release / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return top


def _module_elsewhere(top: Path, _context: Context) -> Path | None:
    """modules.dep names a file that is not there."""
    mine = next(_modules(top), None)
    if mine is None:
        return None
    release = next(parent for parent in mine.parents if parent.parent.name == "modules")
    (release / "modules.dep").write_text("extra/virtio_pci.ko.zst:\n")
    return top


BOTH: tuple[Kind, ...] = ("tree", "folder")
TREES = (
    *(
        Transformation(name, BOTH, apply)
        for name, apply in (
            ("without links", _without_links),
            ("dereferenced", _dereferenced),
            ("only its files", _only_files),
            ("links made absolute", _links_absolute),
            ("names in capitals", _in_capitals),
            ("CRLF", _text(lambda data: data.replace(b"\n", b"\r\n"))),
            ("BOM", _text(lambda data: b"\xef\xbb\xbf" + data)),
            ("UTF-16", _text(lambda data: data.decode("ascii").encode("utf-16"))),
            ("text cut in half", _text(lambda data: data[: len(data) // 2])),
            ("no newline at the end", _text(lambda data: data.rstrip(b"\n"))),
            ("in another folder", _nested),
            ("a file dropped", _one(_files, _remove)),
            ("a file emptied", _one(_files, lambda path: rewritten(path, b""))),
            ("a file of zeroes", _one(_files, lambda path: rewritten(path, bytes(5000)))),
            ("a file became a folder", _one(_files, _replaced(Path.mkdir))),
            ("a file became a FIFO", _one(_files, _replaced(os.mkfifo))),
            ("a file became a socket", _one(_files, _replaced(_socket))),
            ("a file became endless", _one(_files, _replaced(lambda path: path.symlink_to("/dev/zero")))),
            ("a file became huge", _one(_files, _replaced(_sparse))),
            ("a file became a loop", _one(_files, _replaced(lambda path: path.symlink_to(path.name)))),
            (
                "a file became a link out",
                _one(_files, _replaced(lambda path: path.symlink_to(OUTSIDE))),
            ),
            ("a link dropped", _one(_links, _remove)),
            ("a link dangles", _one(_links, _replaced(lambda path: path.symlink_to("nowhere/at/all")))),
            ("a link became a folder", _one(_links, _replaced(Path.mkdir))),
            ("a folder dropped", _one(_folders, _remove)),
            ("a folder emptied", _one(_folders, _folder_emptied)),
            ("a folder became a file", _one(_folders, _replaced(Path.touch))),
            ("code cut", _by_file("cut")),
            ("code with bits flipped", _by_file("bits flipped")),
            ("code with a block zeroed", _by_file("a block zeroed")),
            ("code twice in a row", _by_file("twice in a row")),
            ("code compressed", _by_file("gzip")),
            ("code renamed", _by_file("renamed")),
            ("fixed module in weak-updates", _beside("weak-updates/kernel/drivers/virtio")),
            ("fixed module in extra of another", _beside("extra-of-another")),
            ("fixed module in build", _beside("build/drivers/virtio")),
            ("modules.dep names the affected", _listed_in_modules_dep),
            ("affected module in updates", _affected_in_updates),
            ("fixed module compressed beside it", _compressed_twin),
            ("the fixed module judged before", _fixed_before),
            ("modules.builtin claims it", _claims_built_in),
            ("modules.dep names nothing that is there", _module_elsewhere),
        )
    ),
    Transformation("procfs and sysfs emptied", ("tree",), _proc_emptied),
    Transformation("two builds of one release", ("folder",), _two_builds),
)
