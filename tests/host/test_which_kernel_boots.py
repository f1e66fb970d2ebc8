# SPDX-License-Identifier: GPL-2.0-or-later
"""Of an image with several kernels the one that boots next is judged, and the worst of all where nothing tells."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.archive import cache_folder
from ejectable.cli.app import run
from tests.host.trees import NEWER, RELEASE, Machine, affected_module
from tests.one import ONE

pytestmark = pytest.mark.kernels
ENTRY = "menuentry '{0}' {{\n\tlinux /boot/vmlinuz-{0} ro\n\tinitrd /boot/initrd.img-{0}\n}}\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mounted image: an affected kernel, and a newer one that is not and that /boot/vmlinuz leads to."""
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Machine(module=affected_module(), waiting=True, sysfs=False, procfs=False).build(tmp_path / "tree")


def _says(tree: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The kernel's word, and the exit code."""
    code = run(["check", *ONE, "--root", str(tree), "--verbose"])
    shown = " ".join(capsys.readouterr().out.split())
    word = next(one for one in ("not affected", "affected", "unknown") if f"CVE-2024-42134 {one}" in shown)
    return f"{word}, {code}"


def _write(tree: Path, path: str, text: str | bytes) -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_bytes(text.encode() if isinstance(text, str) else text)


def _grub(tree: Path, saved: str = "", default: str = "${saved_entry}") -> None:
    menu = "".join(ENTRY.format(release) for release in (NEWER, RELEASE))
    _write(tree, "boot/grub/grub.cfg", f'set default="{default}"\n{menu}')
    _write(tree, "boot/grub/grubenv", f"# GRUB Environment Block\nsaved_entry={saved}\n{'#' * 900}")


def _bls(tree: Path, saved: str) -> None:
    for release in (NEWER, RELEASE):
        _write(tree, f"boot/loader/entries/id-{release}.conf", f"version {release}\nlinux /vmlinuz-{release}\n")
    _write(tree, "boot/grub2/grub.cfg", 'set default="${saved_entry}"\nblscfg\n')
    _write(tree, "boot/grub2/grubenv", f"saved_entry={saved}\n")


def _extlinux(tree: Path, release: str) -> None:
    labels = "".join(f"LABEL {one}\n  LINUX ../vmlinuz-{one}\n" for one in (NEWER, RELEASE))
    _write(tree, "boot/extlinux/extlinux.conf", f"DEFAULT {release}\n{labels}")


def _raspberry(tree: Path, release: str) -> None:
    (tree / "boot/firmware").mkdir()
    shutil.copy(tree / f"boot/vmlinuz-{release}", tree / "boot/firmware/vmlinuz")
    _write(tree, "boot/firmware/config.txt", "[pi4]\nover_voltage=1\n[all]\nkernel=vmlinuz\n")


CERTAIN: list[Callable[[Path, str], None]] = [
    _grub,
    lambda tree, release: _bls(tree, f"id-{release}"),
    _extlinux,
    _raspberry,
]


@pytest.mark.parametrize("loader", CERTAIN, ids=["grub", "bls", "extlinux", "raspberry-pi"])
def test_the_kernel_that_the_boot_loader_is_set_to_is_judged(
    loader: Callable[[Path, str], None], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(tree, tmp_path / "other", symlinks=True)
    loader(tree, NEWER)
    assert _says(tree, capsys) == "not affected, 0"
    loader(other, RELEASE)
    assert _says(other, capsys) == "affected, 3", "its devices cannot be seen"


def _nothing(_tree: Path) -> None:
    """Links and names only."""


def _systemd_boot(tree: Path) -> None:
    """Its default may be in the firmware, which no image holds."""
    _write(tree, "efi/loader/loader.conf", f"default id-{NEWER}.conf\n")
    for release in (NEWER, RELEASE):
        _write(tree, f"efi/loader/entries/id-{release}.conf", f"linux /id/{release}/linux\n")
        _write(tree, f"efi/id/{release}/linux", (tree / f"boot/vmlinuz-{release}").read_bytes())


def _zipl(tree: Path) -> None:
    _write(tree, "etc/zipl.conf", "[defaultboot]\ndefault=linux\n")


def _two_loaders(tree: Path) -> None:
    _grub(tree, NEWER)
    _extlinux(tree, RELEASE)


def _two_defaults(tree: Path) -> None:
    _grub(tree)
    menu = tree / "boot/grub/grub.cfg"
    menu.write_text(f"{menu.read_text()}if [ $platform = pc ]; then\nset default=1\nfi\n")


def _variable_in_the_path(tree: Path) -> None:
    _write(tree, "boot/grub/grub.cfg", "menuentry 'x' {\n linux $kernel ro\n}\n")


@pytest.mark.parametrize(
    "loader",
    [_nothing, _systemd_boot, _zipl, _two_loaders, _two_defaults, _variable_in_the_path],
    ids=lambda one: one.__name__.strip("_"),
)
def test_where_it_is_not_certain_the_worst_of_all_counts(
    loader: Callable[[Path], None], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader(tree)
    assert _says(tree, capsys) == "affected, 3"
    run(["check", *ONE, "--root", str(tree), "--verbose"])
    assert "is not certain" in " ".join(capsys.readouterr().out.split())


def test_several_kernels_that_are_all_well_need_no_boot_loader(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tree / f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko"
    shutil.copy(affected_module("fixed"), module)
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 0
    image = tree / f"boot/vmlinuz-{RELEASE}"
    image.write_bytes(image.read_bytes()[: 1 << 20])
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 3, "one of them could not be read, and it may boot"


def test_an_image_that_the_boot_loader_names_and_is_not_there_is_unknown(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _grub(tree, RELEASE)
    (tree / f"boot/vmlinuz-{RELEASE}").unlink()
    assert run(["check", *ONE, "--root", str(tree)]) == 3
    assert f"{RELEASE} boots next" in " ".join(capsys.readouterr().out.split())
