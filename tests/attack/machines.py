# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to whole trees of machines: parts not captured, names and permissions lost, other kernels beside it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ejectable.lab.initramfs import Initramfs
from tests.attack.files import replaced_meanwhile, rewritten
from tests.attack.harness import Context, Kind, Transformation

__all__ = ["MACHINES"]

BOTH: tuple[Kind, ...] = ("tree", "folder")
PAGE = 4096
OTHER = "6.1.0-99-cloud-amd64"


def _entries(top: Path) -> list[Path]:
    return sorted(Path(folder) / name for folder, folders, files in os.walk(top) for name in (*folders, *files))


def _module(top: Path) -> Path | None:
    found = [path for path in _entries(top) if path.name.startswith("virtio_pci.ko") and path.is_file()]
    return found[0] if found else None


def _release(top: Path) -> Path | None:
    """The folder of the modules of a release."""
    module = _module(top)
    return next((one for one in module.parents if one.parent.name == "modules"), None) if module else None


def _without(*parts: str) -> Callable[[Path, Context], Path | None]:
    """A part was not captured."""

    def apply(top: Path, _context: Context) -> Path | None:
        there = [top / part for part in parts if (top / part).exists() or (top / part).is_symlink()]
        for path in there:
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)
        return top if there else None

    return apply


def _only_slots_and_version(top: Path, _context: Context) -> Path | None:
    """As sosreport has it: the hot-plug slots and /proc/version, and nothing else of sysfs and procfs."""
    version = top / "proc/version"
    if not version.is_file():
        return None
    text = version.read_bytes()
    for part in ("sys", "proc"):
        if (top / part).is_dir():
            shutil.rmtree(top / part)
    (top / "sys/bus/pci/slots").mkdir(parents=True)
    (top / "proc").mkdir()
    version.write_bytes(text)
    return top


def _buses_empty(top: Path, _context: Context) -> Path | None:
    """The folders of the buses are there, and no device in them."""
    buses = [path for path in (top / "sys/bus").glob("*/devices") if path.is_dir()]
    for bus in buses:
        for entry in bus.iterdir():
            entry.unlink()
    devices = top / "sys/devices"
    if devices.is_dir():
        shutil.rmtree(devices)
        devices.mkdir()
    return top if buses else None


def _without_colons(top: Path, _context: Context) -> Path:
    """As zip on Windows and some shares have it: 0000:00:06.0 is 0000_00_06.0."""
    for path in reversed(_entries(top)):
        if ":" in path.name:
            path.rename(path.with_name(path.name.replace(":", "_")))
    return top


def _padded(top: Path, _context: Context) -> Path | None:
    """Files of sysfs as long as stat says they are: a page, the rest zeroes."""
    there = [path for path in (top / "sys").rglob("*") if path.is_file() and not path.is_symlink()]
    for path in there:
        data = path.read_bytes()
        rewritten(path, data + bytes(max(0, PAGE - len(data))))
    return top if there else None


def _old(top: Path, _context: Context) -> Path:
    for path in _entries(top):
        os.utime(path, (0, 0), follow_symlinks=False)
    return top


def _mode(pick: Callable[[Path], list[Path]], mode: int) -> Callable[[Path, Context], Path | None]:
    def apply(top: Path, context: Context) -> Path | None:
        found = pick(top)
        if not found:
            return None
        context.chance.choice(found).chmod(mode)
        return top

    return apply


def _real_files(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.is_file() and not path.is_symlink()]


def _real_folders(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.is_dir() and not path.is_symlink()]


def _all_files_unreadable(top: Path, _context: Context) -> Path:
    for path in _real_files(top):
        path.chmod(0)
    return top


def _file_twice(top: Path, context: Context) -> Path | None:
    found = _real_files(top)
    if not found:
        return None
    path = context.chance.choice(found)
    shutil.copyfile(path, path.with_name(f"{path.name}.orig"))
    return top


def _folder_twice(top: Path, context: Context) -> Path | None:
    found = _real_folders(top)
    if not found:
        return None
    path = context.chance.choice(found)
    shutil.copytree(path, path.with_name(f"{path.name}-copy"), symlinks=True)
    return top


def _another_release(top: Path, context: Context) -> Path | None:
    """A newer release is installed, with the fixed module; the boot loader is set to the affected one."""
    release, theirs = _release(top), _module(context.twin())
    image = next((path for path in _entries(top) if path.name.startswith("vmlinuz-")), None)
    if release is None or theirs is None or image is None:
        return None
    mine = _module(top)
    assert mine is not None
    target = release.with_name(OTHER) / mine.relative_to(release)
    target.parent.mkdir(parents=True)
    shutil.copyfile(theirs, target)
    name = image.name.removeprefix("vmlinuz-")
    data = image.read_bytes()
    image.with_name(f"vmlinuz-{OTHER}").write_bytes(data.replace(name.encode(), OTHER.encode()[: len(name)]))
    grub = image.parent / "grub"
    grub.mkdir(exist_ok=True)
    entries = "".join(f"menuentry '{one}' --id {one} {{\n linux /boot/vmlinuz-{one}\n}}\n" for one in (OTHER, name))
    (grub / "grub.cfg").write_text(f'load_env\nset default="${{saved_entry}}"\n{entries}')
    (grub / "grubenv").write_text(f"# GRUB Environment Block\nsaved_entry={name}\n".ljust(1024, "#"))
    return top


def _affected_only_in_the_initrd(top: Path, context: Context) -> Path | None:
    """The fixed module is on the disk; the initrd was not made anew, and holds the affected one."""
    release, mine, theirs = _release(top), _module(top), _module(context.twin())
    image = next((path for path in _entries(top) if path.name.startswith("vmlinuz-")), None)
    if release is None or mine is None or theirs is None or image is None:
        return None
    archive = Initramfs()
    archive.file(f"usr/lib/modules/{release.name}/{mine.relative_to(release)}", mine.read_bytes())
    image.with_name(f"initrd.img-{image.name.removeprefix('vmlinuz-')}").write_bytes(archive.image)
    if not (top / "proc").exists() and not (top / "sys").exists():
        mine.unlink()
        shutil.copyfile(theirs, mine)
    return top


def _config(text: str) -> Callable[[Path, Context], Path | None]:
    """The module was not captured, and a configuration lies beside the image."""

    def apply(top: Path, _context: Context) -> Path | None:
        image = next((path for path in _entries(top) if path.name.startswith("vmlinuz-")), None)
        module = _module(top)
        if image is None or module is None:
            return None
        module.unlink()
        image.with_name(f"config-{image.name.removeprefix('vmlinuz-')}").write_text(text)
        return top

    return apply


def _live_patch(top: Path, _context: Context) -> Path | None:
    """A live patch is under way, and patches something else."""
    if not (top / "sys/kernel").is_dir():
        return None
    patch = top / "sys/kernel/livepatch/lp"
    (patch / "vmlinux/vp_del_vqs,1").mkdir(parents=True)
    (patch / "enabled").write_text("1\n")
    (patch / "transition").write_text("1\n")
    (patch / "vmlinux/patched").write_text("1\n")
    return top


def _two_trees(top: Path, context: Context) -> Path | None:
    """The files of the fixed twin that this tree has not are copied over it, as `cp -n` does it."""
    twin = context.twin()
    for path in _entries(twin):
        target = top / path.relative_to(twin)
        if not (target.exists() or target.is_symlink()) and path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return top


def _module_replaced_during_a_run(top: Path, context: Context) -> Path | None:
    mine, theirs = _module(top), _module(context.twin())
    if mine is None or theirs is None:
        return None
    replaced_meanwhile(rewritten(mine, mine.read_bytes()), theirs, lambda: context.ask(top))
    return top


MACHINES = (
    *(
        Transformation(name, BOTH, apply)
        for name, apply in (
            ("names without colons", _without_colons),
            ("all times lost", _old),
            ("a file duplicated", _file_twice),
            ("a folder duplicated", _folder_twice),
            ("another release, fixed, and not booted", _another_release),
            ("affected only in the initrd", _affected_only_in_the_initrd),
            ("no module, a config cut off", _config("#\n# Linux/x86 6.1 Kernel Configuration\n#\nCONFIG_64BIT=y\n")),
            ("no module, a config without it", _config("CONFIG_64BIT=y\n# CONFIG_VIRTIO_PCI is not set\n")),
            ("no module, an empty config", _config("")),
            ("the fixed twin's other files", _two_trees),
            ("module replaced during a run", _module_replaced_during_a_run),
            ("boot not captured", _without("boot")),
            ("modules not captured", _without("lib", "usr/lib/modules")),
        )
    ),
    *(
        Transformation(name, BOTH, apply, as_nobody=True)
        for name, apply in (
            ("a file may not be read", _mode(_real_files, 0)),
            ("a folder may not be read", _mode(_real_folders, 0)),
            ("a folder may not be listed", _mode(_real_folders, 0o311)),
            ("a folder may not be entered", _mode(_real_folders, 0o644)),
            ("no file may be read", _all_files_unreadable),
        )
    ),
    *(
        Transformation(name, ("tree",), apply)
        for name, apply in (
            ("only slots and version", _only_slots_and_version),
            ("buses without devices", _buses_empty),
            ("sysfs padded with zeroes", _padded),
            ("procfs not captured", _without("proc")),
            ("sysfs not captured", _without("sys")),
            ("nothing but etc", _without("proc", "sys", "boot", "lib", "usr/lib/modules")),
            ("a live patch in transition", _live_patch),
        )
    ),
)
