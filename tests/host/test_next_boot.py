# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel boots next is read from the boot loader's own files: GRUB, Boot Loader Specification, systemd-boot."""

from pathlib import Path

import pytest

from ejectable import host
from ejectable.host import NextBoot, boots_next
from ejectable.remedies.upgrade.boot import instead

OLD, NEW = "6.1.0-50-cloud-amd64", "6.1.0-56-cloud-amd64"
UUID = "0f1b2c3d-1111-2222-3333-444455556666"


def _entry(release: str, indent: str, kind: str = "advanced") -> str:
    return (
        f"{indent}menuentry 'Debian GNU/Linux, with Linux {release}' --class debian --class os "
        f"$menuentry_id_option 'gnulinux-{release}-{kind}-{UUID}' {{\n"
        f"{indent}\tload_video\n"
        f"{indent}\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi\n"
        f"{indent}\tif [ x$feature_platform_search_hint = xy ]; then\n{indent}\t  search --no-floppy {UUID}\n"
        f"{indent}\telse\n{indent}\t  search --no-floppy --fs-uuid {UUID}\n{indent}\tfi\n"
        f"{indent}\tlinux\t/boot/vmlinuz-{release} root=UUID={UUID} ro quiet\n"
        f"{indent}\tinitrd\t/boot/initrd.img-{release}\n{indent}}}\n"
    )


def _grub_cfg(default: str) -> str:
    """As grub-mkconfig writes it: functions first, one entry for the newest, the others in a submenu."""
    return (
        'if [ -s $prefix/grubenv ]; then\n  set have_grubenv=true\n  load_env\nfi\nif [ "${next_entry}" ] ; then\n'
        '   set default="${next_entry}"\n   set next_entry=\n   save_env next_entry\n   set boot_once=true\nelse\n'
        f'   set default="{default}"\nfi\n\nfunction savedefault {{\n  if [ -z "${{boot_once}}" ]; then\n'
        '    saved_entry="${chosen}"\n    save_env saved_entry\n  fi\n}\nfunction load_video {\n  insmod all_video\n}\n'
        + _entry(NEW, "", "simple").replace(f"'Debian GNU/Linux, with Linux {NEW}'", "'Debian GNU/Linux'")
        + f"submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-{UUID}' {{\n"
        + _entry(NEW, "\t")
        + _entry(OLD, "\t")
        + "}\n"
    )


def _grub(root: Path, default: str, environment: str = "", setting: str = "0") -> NextBoot:
    (root / "boot/grub").mkdir(parents=True)
    (root / "etc/default").mkdir(parents=True)
    (root / "boot/grub/grub.cfg").write_text(_grub_cfg(default))
    (root / "boot/grub/grubenv").write_text(f"# GRUB Environment Block\n{environment}\n{'#' * 900}")
    (root / "etc/default/grub").write_text(f"# comment\nGRUB_DEFAULT={setting}\nGRUB_TIMEOUT=5\n")
    return boots_next(host.Root(root))


def test_the_first_entry_of_grub_is_the_newest_kernel(tmp_path: Path) -> None:
    boots = _grub(tmp_path, "0")
    assert (boots.release, boots.certain, boots.loader) == (NEW, True, "grub")
    assert "GRUB_DEFAULT=0" in boots.how


@pytest.mark.parametrize(
    "default", ["1>1", f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}", "Advanced options>1"]
)
def test_grub_pinned_to_an_old_kernel_is_told_with_the_way_out(tmp_path: Path, default: str) -> None:
    boots = _grub(tmp_path, default, setting=f'"{default}"')
    assert boots.release == OLD
    assert instead(boots, NEW) == (f"sudo grub-reboot gnulinux-{NEW}-simple-{UUID}",)


def test_a_saved_entry_of_grub_decides(tmp_path: Path) -> None:
    saved = f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}"
    boots = _grub(tmp_path, "${saved_entry}", f"saved_entry={saved}", "saved")
    assert boots.release == OLD
    assert "saved_entry" in boots.how
    assert instead(boots, NEW) == (f"sudo grub-set-default gnulinux-{NEW}-simple-{UUID}",)


def test_a_next_entry_holds_for_one_boot(tmp_path: Path) -> None:
    boots = _grub(tmp_path, "0", "next_entry=1>1")
    assert boots.release == OLD
    assert "one boot" in boots.how


def test_a_saved_entry_that_is_gone_falls_back_to_the_first_as_grub_does(tmp_path: Path) -> None:
    assert _grub(tmp_path, "${saved_entry}", "saved_entry=gone", "saved").release == NEW


def _bls(root: Path, saved: str) -> NextBoot:
    """As Fedora has it."""
    (root / "boot/grub2").mkdir(parents=True)
    (root / "boot/loader/entries").mkdir(parents=True)
    (root / "boot/grub2/grub.cfg").write_text('set default="${saved_entry}"\ninsmod blscfg\nblscfg\n')
    (root / "boot/grub2/grubenv").write_text(f"# GRUB Environment Block\nsaved_entry={saved}\n")
    for release in ("6.8.5-301.fc40.x86_64", "6.8.9-300.fc40.x86_64", "6.8.10-300.fc40.x86_64"):
        (root / f"boot/loader/entries/0123abc-{release}.conf").write_text(
            f"title Fedora Linux ({release})\nversion {release}\nlinux /vmlinuz-{release}\n"
            f"initrd /initramfs-{release}.img $tuned_initrd\noptions root=UUID={UUID} ro\n"
        )
    return boots_next(host.Root(root))


def test_an_entry_of_the_boot_loader_specification_can_be_the_saved_one(tmp_path: Path) -> None:
    boots = _bls(tmp_path, "0123abc-6.8.5-301.fc40.x86_64")
    assert (boots.release, boots.loader) == ("6.8.5-301.fc40.x86_64", "bls")
    assert instead(boots, "6.8.10-300.fc40.x86_64") == (
        "sudo grubby --set-default /boot/vmlinuz-6.8.10-300.fc40.x86_64",
    )


def test_without_a_saved_entry_the_newest_of_the_specification_boots(tmp_path: Path) -> None:
    assert _bls(tmp_path, "").release == "6.8.10-300.fc40.x86_64"


def _systemd_boot(root: Path, default: str) -> NextBoot:
    (root / "efi/loader/entries").mkdir(parents=True)
    (root / "efi/loader/loader.conf").write_text(f"timeout 3\n{default}\n")
    for release in (OLD, NEW):
        (root / f"efi/loader/entries/machine-{release}.conf").write_text(
            f"title Debian\nlinux /machine/{release}/linux\ninitrd /machine/{release}/initrd.img\n"
        )
    return boots_next(host.Root(root))


def test_systemd_boot_takes_the_newest_that_fits_its_pattern(tmp_path: Path) -> None:
    assert _systemd_boot(tmp_path, "default machine-*").release == NEW


def test_systemd_boot_pinned_to_an_old_kernel_is_told_with_the_way_out(tmp_path: Path) -> None:
    boots = _systemd_boot(tmp_path, f"default machine-{OLD}.conf")
    assert boots.release == OLD
    assert instead(boots, NEW) == (f"sudo bootctl set-default machine-{NEW}.conf",)


def test_an_efi_variable_that_overrules_the_file_makes_it_unknown(tmp_path: Path) -> None:
    variables = tmp_path / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    (variables / "LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f").write_bytes(b"\x07\0\0\0x\0")
    boots = _systemd_boot(tmp_path, "default machine-*")
    assert (boots.release, boots.certain) == (None, False)


def test_without_a_boot_loader_names_are_a_guess_and_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/vmlinuz-{OLD}").write_bytes(b"")
    (tmp_path / f"boot/vmlinuz-{NEW}").write_bytes(b"")
    boots = boots_next(host.Root(tmp_path))
    assert (boots.release, boots.certain) == (NEW, False)
    assert "names" in boots.how


@pytest.mark.parametrize(
    "text", ["submenu 'a' {\n" * 400, "}\n" * 400, "menuentry 'x' {", "set default=\n", "\0\xff" * 99]
)
def test_a_menu_that_makes_no_sense_is_unknown_not_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grub.cfg").write_text(text)
    boots = boots_next(host.Root(tmp_path))
    assert (boots.release, boots.certain) == (None, False)
