# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever stands in a tree in place of what is expected: no word of what lies outside, no waiting, no bug of ours."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ejectable.cli.app import run

SECRET = "SECRET-OF-THE-HOST"
FILES = {
    "proc/version": "Linux version 6.1.0 (a@b) (gcc 12) #1 SMP\n",
    "proc/modules": "virtio_pci 16384 0 - Live 0x0\n",
    "proc/cmdline": "root=/dev/vda1\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "proc/sys/kernel/panic_on_oops": "1\n",
    "sys/bus/pci/devices/.keep": "",
    "sys/devices/pci0000:00/0000:00:06.0/virtio0/features": "0" * 64 + "\n",
    "sys/devices/pci0000:00/0000:00:06.0/virtio0/device": "0x0002\n",
    "sys/kernel/notes": "",
    "etc/os-release": "ID=debian\n",
    "etc/hostname": "guest\n",
    "etc/modprobe.d/virtio.conf": "options virtio_pci force_legacy=1\n",
    "boot/vmlinuz-6.1.0": "no kernel",
    "boot/config-6.1.0": "CONFIG_VIRTIO_PCI=m\n",
    "boot/initrd.img-6.1.0": "070701",
    "boot/grub/grub.cfg": "menuentry 'Linux' {\n linux /boot/vmlinuz-6.1.0\n}\n",
    "boot/grub/grubenv": "# GRUB Environment Block\nsaved_entry=0\n",
    "lib/modules/6.1.0/modules.dep": "kernel/drivers/virtio/virtio_pci.ko:\n",
    "lib/modules/6.1.0/kernel/drivers/virtio/virtio_pci.ko": "no module",
    "var/lib/dpkg/status": "",
}
LINKS = {
    "sys/bus/virtio/devices/virtio0": "../../../devices/pci0000:00/0000:00:06.0/virtio0",
    "sys/bus/pci/devices/0000:00:06.0": "../../../devices/pci0000:00/0000:00:06.0",
    "vmlinuz": "boot/vmlinuz-6.1.0",
}
PLACES = (
    *FILES,
    *LINKS,
    "proc",
    "sys/bus",
    "sys/bus/virtio/devices",
    "boot",
    "etc/modprobe.d",
    "lib",
    "lib/modules/6.1.0",
)


def _link_out(path: Path) -> None:
    """To the host's own, by its whole path: a folder with the same names in it."""
    tree = next(parent for parent in path.parents if parent.name == "tree")
    path.symlink_to(tree.parent / "outside" / path.relative_to(tree))


def _climb(path: Path) -> None:
    tree = next(parent for parent in path.parents if parent.name == "tree")
    path.symlink_to("../" * 40 + str(tree.parent / "outside" / path.relative_to(tree)).lstrip("/"))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 36)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path has 107 bytes at most
        os.close(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o020600, os.makedev(1, 8))  # /dev/random, which never ends
    except PermissionError:
        path.touch()


def _names(path: Path) -> None:
    path.mkdir()
    for number in range(300):
        (path / f"\x1b[2J{number}\n").touch()


KINDS: dict[str, Callable[[Path], None]] = {
    "a link out": _link_out,
    "a climbing link": _climb,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to the top": lambda path: path.symlink_to("/"),
    "a dangling link": lambda path: path.symlink_to("nothing"),
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a device": _device,
    "a giant": _sparse,
    "an empty folder": Path.mkdir,
    "a folder of odd names": _names,
    "a closed file": lambda path: path.touch(mode=0),
}


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _lay_out(top: Path, content: str | None = None) -> None:
    for name, text in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text if content is None else content)
    for name, target in LINKS.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).symlink_to(target)


def _all_below(top: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in top.rglob("*"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_in_a_tree_leads_out_of_it_holds_us_up_or_breaks_us(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outside = tmp_path / "outside"
    _lay_out(outside, f"{SECRET}\n")
    for number, place in enumerate(PLACES):
        tree = tmp_path / str(number) / "tree"
        tree.parent.mkdir()
        (tree.parent / "outside").symlink_to(outside)
        _lay_out(tree)
        path = tree / place
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        KINDS[kind](path)
        before = _all_below(tree), _all_below(outside)
        for command in (["check", "--root", str(tree)], ["fix", "--root", str(tree), "--offline"]):
            signal.alarm(30)
            begun = time.monotonic()
            code = run([*command, "--format", "json"])
            said = "".join(capsys.readouterr())
            where = f"{kind} at {place}: {command[0]}"
            assert code in (2, 3, 65, 69), f"{where}: {code}: {said}"
            assert SECRET not in said, where
            assert "bug in ejectable" not in said, where
            assert time.monotonic() - begun < 20, where
        assert (_all_below(tree), _all_below(outside)) == before, f"{kind} at {place}: something was written"


@pytest.mark.parametrize("digits", ["9" * 5000, "\u00b2", "\u0663", "-1", "0x10", "1" * 20])
def test_a_number_that_is_none_breaks_nothing(tmp_path: Path, digits: str) -> None:
    """Python refuses to read more than 4,300 digits, and calls more characters digits than it reads."""
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grubenv").write_text(f"# GRUB Environment Block\nsaved_entry={digits}\n")
    (tmp_path / "boot/grub/grub.cfg").write_text(
        'set default="${saved_entry}"\nload_env\nmenuentry "a" {\n\tlinux /boot/vmlinuz-6.8.0-31-generic\n}\n'
    )
    (tmp_path / "boot/vmlinuz-6.8.0-31-generic").write_bytes(b"")
    (tmp_path / "var/lib/ejectable").mkdir(parents=True)
    (tmp_path / "var/lib/ejectable/live-loaded").write_text(f"boot 6.8 {digits}\n")
    for name in ("panic", "panic_on_oops"):
        (tmp_path / "proc/sys/kernel").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/sys/kernel" / name).write_text(digits)
    assert run(["check", "--root", str(tmp_path), "--no-cache"]) == 3
    assert run(["fix", "--root", str(tmp_path), "--offline", "--no-cache"]) in (3, 69)
