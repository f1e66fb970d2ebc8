# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine is said to have no legacy device only where the list of its devices is proven to be whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.cli.app import run
from ejectable.host.devices import Found
from tests.host.trees import LEGACY_DISK, MODERN_NIC, Machine
from tests.intake.test_files import as_nobody, public_folder
from tests.one import ONE

__all__ = ["public_folder"]


def _tree(root: Path, *devices: object) -> Path:
    """A machine whose kernel is not there: its answer is that of its devices."""
    return Machine(devices=devices, image=False, running_build_id="ab" * 20).build(root)  # type: ignore[arg-type]


def _links(tree: Path) -> list[Path]:
    return [path for path in tree.rglob("*") if path.is_symlink()]


def _without_links(tree: Path) -> None:
    """As `rsync -r` copies."""
    for link in _links(tree):
        link.unlink()


def _without_links_or_empty_folders(tree: Path) -> None:
    """As `find -type f | cpio` and zip copy."""
    _without_links(tree)
    for folder in sorted((path for path in tree.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _dereferenced(tree: Path) -> None:
    """As `cp -rL` copies, up to where it goes round in circles."""
    for link in sorted(_links(tree), key=lambda path: len(path.parts), reverse=True):
        target = link.resolve()
        link.unlink()
        if target.is_dir():
            shutil.copytree(target, link, symlinks=True, ignore_dangling_symlinks=True)
        elif target.exists():
            shutil.copy(target, link)


def _buses_only(tree: Path) -> None:
    """The links, and not what they lead to."""
    shutil.rmtree(tree / "sys/devices")


def _slots_only(tree: Path) -> None:
    """As sosreport has it."""
    for path in ("sys/devices", "sys/bus/virtio", "sys/bus/pci/devices"):
        shutil.rmtree(tree / path, ignore_errors=True)
    (tree / "sys/bus/pci/slots").mkdir(exist_ok=True)


def _empty_lists(tree: Path) -> None:
    shutil.rmtree(tree / "sys/devices")
    for bus in ("virtio", "pci"):
        shutil.rmtree(tree / f"sys/bus/{bus}/devices", ignore_errors=True)
        (tree / f"sys/bus/{bus}/devices").mkdir(parents=True)


def _one_link_less(bus: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        name = {"virtio": "virtio0", "pci": "0000:00:06.0"}[bus]
        (tree / f"sys/bus/{bus}/devices/{name}").unlink()

    change.__name__ = f"one_{bus}_link_less"
    return change


def _both_links_less(tree: Path) -> None:
    for bus in ("virtio", "pci"):
        _one_link_less(bus)(tree)


def _bus_less(bus: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        shutil.rmtree(tree / "sys/bus" / bus)

    change.__name__ = f"{bus}_bus_less"
    return change


def _both_buses_less(tree: Path) -> None:
    for bus in ("virtio", "pci"):
        _bus_less(bus)(tree)
    (tree / "sys/bus/platform/devices").mkdir(parents=True)


def _device_less(tree: Path) -> None:
    shutil.rmtree(next((tree / "sys/devices").rglob("virtio0")))


def _functions_less(tree: Path) -> None:
    shutil.rmtree(tree / "sys/devices/pci0000:00/0000:00:06.0")


def _swapped(tree: Path) -> None:
    """Both links lead to the modern device."""
    link = tree / "sys/bus/virtio/devices/virtio0"
    target = (tree / "sys/bus/virtio/devices/virtio1").readlink()
    link.unlink()
    link.symlink_to(target)


def _emptied(tree: Path) -> None:
    """As tar copies /proc and, where it trusts stat(2), /sys."""
    for path in [*(tree / "sys").rglob("*"), *(tree / "proc").rglob("*")]:
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"")


WAYS = [
    _without_links,
    _without_links_or_empty_folders,
    _dereferenced,
    _buses_only,
    _slots_only,
    _empty_lists,
    _one_link_less("virtio"),
    _one_link_less("pci"),
    _both_links_less,
    _bus_less("virtio"),
    _bus_less("pci"),
    _both_buses_less,
    _device_less,
    _functions_less,
    _swapped,
    _emptied,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_no_way_of_copying_hides_a_legacy_device(way: Callable[[Path], None], tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", LEGACY_DISK, MODERN_NIC)
    assert host.read(host.Root(tree)).doubts == ()
    way(tree)
    assert run(["check", *ONE, "--root", str(tree), "--quiet", "--no-cache"]) == 3


@pytest.mark.parametrize("way", WAYS[:6], ids=lambda way: way.__name__.strip("_"))
def test_a_machine_without_virtio_is_one_only_where_that_was_copied(
    way: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = _tree(tmp_path / "tree")
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 0
    assert "has no device" in capsys.readouterr().out
    way(tree)
    assert run(["check", *ONE, "--root", str(tree), "--no-cache"]) == 3
    assert "cp -a" in " ".join(capsys.readouterr().out.split())


def test_a_machine_without_pci_has_none_where_its_devices_show_none(tmp_path: Path) -> None:
    for name in ("platform/serial8250", "system/cpu/cpu0"):
        (tmp_path / "sys/devices" / name).mkdir(parents=True)
    devices = tmp_path / "sys/bus/cpu/devices"
    devices.mkdir(parents=True)
    (devices / "cpu0").symlink_to("../../../devices/system/cpu/cpu0")
    root = host.Root(tmp_path)
    assert host.devices.read_devices(root, host.slots.Slots(root)) == Found((), ())
    (tmp_path / "sys/devices/pci0000:00/0000:00:00.0").mkdir(parents=True)
    assert host.devices.read_devices(host.Root(tmp_path), host.slots.Slots(root)).doubts


def test_more_folders_than_are_looked_into_leave_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = _tree(tmp_path / "tree", MODERN_NIC)
    for most in (0, 1, 3):
        monkeypatch.setattr(host.enumeration, "MOST_NAMES", most)
        assert {doubt.kind for doubt in host.read(host.Root(tree)).doubts} >= {"bound"}


@pytest.mark.parametrize("hidden", ["sys", "sys/bus", "sys/bus/virtio/devices", "sys/bus/pci", "sys/devices"])
def test_what_may_not_be_read_is_called_that(
    hidden: str, public_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(public_folder / "cache"))
    tree = _tree(public_folder / "tree", MODERN_NIC)
    (tree / hidden).chmod(0)
    with as_nobody():
        code = run(["check", *ONE, "--root", str(tree)])
    (tree / hidden).chmod(0o755)
    assert code == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert "may not be read" in shown
    assert "not mounted here, or not captured" not in shown


def test_a_device_says_what_was_not_seen_of_it(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", LEGACY_DISK, MODERN_NIC)
    features = next((tree / "sys/devices").rglob("virtio0")) / "features"
    for content, kind in ((b"", "cut-off"), (b"what\n", "unparsed"), (None, "missing")):
        features.unlink() if content is None else features.write_bytes(content)
        disk, nic = host.read(host.Root(tree)).devices or ()
        assert [doubt.kind for doubt in disk.doubts] == [kind]
        assert nic.doubts == ()
