# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix force-legacy`: what makes devices legacy is taken away, and the next boot is without it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from corpus.archive import cache_folder, fetch, locked
from ejectable import host
from ejectable.errors import BadInput, Missing, WrongUsage
from ejectable.intake import DEFAULT_LIMITS, Directory
from ejectable.model import Applied, Remedy
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.boot_images import initramfs_that_asks
from ejectable.remedies.legacy_places import find_places
from ejectable.report import document
from tests.host.trees import RELEASE, Machine, affected_module
from tests.one import the_first
from tests.remedies.own_state import IN_A_CHILD
from tests.remedies.test_force_legacy_places import config, put

pytestmark = pytest.mark.kernels
WORD = "virtio_pci.force_legacy=1"
GRUB = f'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="console=ttyS0 {WORD}" # ours\n'
TRANSITIONAL = config((0x98, 0x11, 0), (0x84, 9, 5), (0x40, 9, 1))
PURE = config((0x98, 0x11, 0))
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def build(*, pci: bytes = TRANSITIONAL, module: bool = True, word: str = WORD) -> Path:
        line = f"BOOT_IMAGE=/vmlinuz ro {word}"
        root = Machine(module=affected_module() if module else None, command_line=line).build(tmp_path / "machine")
        put(root, "/sys/devices/pci0000:00/0000:00:06.0/config", pci)
        return root

    return build


def situation(root: Path, *, live: bool = False) -> Situation:
    seen = host.Root(root)
    seen.live = live  # as if it were this machine: what is run then is in the test's PATH
    return Situation(seen, the_first(), cache=False, offline=True)


def planned(root: Path) -> Remedy:
    (line,) = execute.plan(situation(root), Request(), ["force-legacy"])
    return line


def apply(root: Path, *, live: bool = False) -> Applied:
    return execute.apply(situation(root, live=live), "force-legacy", Request())


def undo(root: Path, *, live: bool = False) -> Applied:
    return execute.undo(situation(root, live=live), "force-legacy", Request())


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file; of an initramfs, which holds times of files, whether it asks for legacy driving."""
    kept = root / "var/lib/ejectable"
    files = [p for p in root.rglob("*") if p.is_file() and not p.is_relative_to(kept)]
    asking = initramfs_that_asks(host.Root(root), DEFAULT_LIMITS)
    return {str(p): str(asking).encode() if p.name.startswith("initrd") else p.read_bytes() for p in files}


def test_of_a_mounted_image_every_place_is_edited_and_restored(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/boot/grub/grub.cfg", f"menuentry 'x' {{\n\tlinux /vmlinuz ro {WORD} quiet\n}}\n")
    put(root, "/boot/loader/entries/1.conf", f"title x\noptions ro {WORD}\n")
    put(root, "/usr/lib/modprobe.d/vendor.conf", "options virtio_pci force_legacy=1\noptions virtio_net napi_tx=1\n")
    before = snapshot(root)
    line = planned(root)
    assert (line.state, line.cost, line.verified) == ("possible", "a reboot", False)
    assert "virtio0 (disk, 0000:00:06.0) is transitional: it would be modern." in line.details
    assert line.commands[0] == f"sudo ejectable fix force-legacy --apply --root {root}"
    assert snapshot(root) == before

    done = apply(root)
    assert done.verified
    assert done.reboot
    assert "until it is booted anew" in done.why
    assert (root / "etc/default/grub").read_text() == GRUB.replace(f" {WORD}", "")
    assert (root / "boot/grub/grub.cfg").read_text() == "menuentry 'x' {\n\tlinux /vmlinuz ro quiet\n}\n"
    assert (root / "boot/loader/entries/1.conf").read_text() == "title x\noptions ro\n"
    assert (root / "etc/modprobe.d/vendor.conf").read_text() == "options virtio_net napi_tx=1\n"
    assert "force_legacy=1" in (root / "usr/lib/modprobe.d/vendor.conf").read_text(), "a package's file stays"
    assert find_places(host.Root(root)) == ()
    assert any(text.startswith("-GRUB_CMDLINE_LINUX") for text in done.diff)
    assert (planned(root).state, planned(root).verified) == ("done", True)
    assert "until you reboot" in planned(root).why

    assert undo(root).verified
    assert snapshot(root) == before
    with pytest.raises(WrongUsage):
        undo(root)


def test_done_before_the_last_boot_and_still_there_is_not_called_done(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    apply(root)
    put(root, "/proc/stat", "cpu 0\nbtime 4000000000\n")  # booted in 2096: after the change
    assert planned(root).state == "impossible"
    assert "no place that is known here asks for it" in planned(root).why


def test_purely_legacy_devices_are_not_helped(tree: Tree) -> None:
    root = tree(pci=PURE)
    put(root, "/etc/default/grub", GRUB)
    line = planned(root)
    assert line.state == "impossible"
    assert "purely legacy" in line.why
    assert "virtio0 (disk, 0000:00:06.0) is purely legacy: it stays as it is." in line.details


def test_what_only_root_may_read_is_said(tree: Tree) -> None:
    root = tree(pci=TRANSITIONAL[:64])
    put(root, "/etc/default/grub", GRUB)
    line = planned(root)
    assert line.state == "possible"
    assert any("only root may read the PCI capabilities" in detail for detail in line.details)


def test_where_it_is_not_set_there_is_nothing_to_do(tree: Tree) -> None:
    root = tree(word="quiet")
    assert planned(root).state == "impossible"
    assert "not set" in planned(root).why
    with pytest.raises(WrongUsage, match="not set"):
        apply(root)


def test_a_command_line_that_comes_from_elsewhere_is_told_apart(tree: Tree) -> None:
    root = tree()
    line = planned(root)
    assert line.state == "impossible"
    assert "hypervisor" in line.why
    assert line.commands == (), "what is shown here would be of this machine, not of the tree"


def test_a_script_that_sets_it_is_left_to_people(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/etc/grub.d/40_custom", f"#!/bin/sh\necho linux /x {WORD}\n")
    before = snapshot(root)
    assert planned(root).state == "impossible"
    assert "/etc/grub.d/40_custom, line 2" in planned(root).why
    with pytest.raises(Missing, match="40_custom, line 2"):
        apply(root)
    assert snapshot(root) == before


def test_a_driver_that_is_built_in_sees_no_option_of_modprobe(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(word="quiet")
    put(root, "/etc/modprobe.d/v.conf", "options virtio_pci force_legacy=1\n")
    assert planned(root).state == "possible"
    (root / f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko").unlink()
    put(root, f"/usr/lib/modules/{RELEASE}/modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\n")
    report = situation(root).running_kernel.report
    assert report is not None
    assert report.virtio_pci == "builtin"
    assert planned(root).state == "impossible"
    del monkeypatch


def test_a_unified_image_keeps_it_from_being_called_verified(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/kernel/cmdline", f"ro {WORD}\n")
    put(root, "/efi/EFI/Linux/a.efi", f"MZ ro {WORD}\0".encode())
    done = apply(root)
    assert not done.verified
    assert "/efi/EFI/Linux/a.efi has it built in" in done.why
    assert done.next_steps


# On a machine that runs: with the system's own programs. They are found in PATH and work on the tree.


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("ejectable.remedies.audit.syslog.syslog", lambda *_: None)
    return folder


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def real_grub_mkconfig(root: Path, programs: Path) -> None:
    """Debian's grub-mkconfig and 10_linux, with their paths turned to the tree, and as update-grub calls them.

    Only grub-probe is ours: it looks at block devices, of which a tree has none.
    """
    kept = cache_folder() / "extracted/grub-common"
    with locked("grub-common"):
        if not kept.exists():
            subprocess.run(["dpkg-deb", "-x", fetch("grub-common"), kept.with_suffix(".part")], check=True)
            kept.with_suffix(".part").rename(kept)
    for name in ("usr/sbin/grub-mkconfig", "usr/share/grub/grub-mkconfig_lib", "etc/grub.d/10_linux"):
        text = (kept / name).read_text().replace("/boot/", f"{root}/boot/")
        for variable, value in (
            ("prefix", "/usr"),
            ("exec_prefix", "/usr"),
            ("sysconfdir", "/etc"),
            ("datarootdir", "/usr/share"),
        ):
            text = text.replace(f'\n{variable}="{value}"', f'\n{variable}="{root}{value}"')
        program(root / name, text)
    for tool in ("grub-file", "grub-editenv", "grub-script-check", "grub-mkrelpath"):
        program(root / f"usr/bin/{tool}", (f'#!/bin/sh\nexec {kept}/usr/bin/{tool} "$@"\n'))
    answers = "*device*) echo /dev/vda1;; *fs_uuid*) echo 1234-abcd;; *) echo ext2;;"
    program(root / "usr/sbin/grub-probe", f'#!/bin/sh\ncase "$*" in {answers} esac\n')
    (root / "boot/grub").mkdir(exist_ok=True)
    menu = f"{root}/boot/grub/grub.cfg"
    program(programs / "update-grub", f'#!/bin/sh\nset -e\nexec {root}/usr/sbin/grub-mkconfig -o {menu} "$@"\n')


def update_initramfs(root: Path, programs: Path) -> None:
    """Does what initramfs-tools' hook does with modprobe.d, and packs it."""
    program(
        programs / "update-initramfs",
        f"""#!/bin/sh -e
[ "$*" = "-u -k all" ]
cd {root}
for kernel in boot/vmlinuz-*; do
	find etc/modprobe.d usr/lib/modprobe.d -name '*.conf' 2>/dev/null | sort |
		cpio -o -H newc --quiet | gzip -n > boot/initrd.img-${{kernel#boot/vmlinuz-}}.new
	mv boot/initrd.img-${{kernel#boot/vmlinuz-}}.new boot/initrd.img-${{kernel#boot/vmlinuz-}}
done
""",
    )
    subprocess.run([programs / "update-initramfs", "-u", "-k", "all"], check=True)


def test_with_debians_own_grub_the_menu_is_made_anew(tree: Tree, programs: Path) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/etc/default/grub.d/50-cloud.cfg", f'GRUB_CMDLINE_LINUX_DEFAULT="quiet {WORD}"\n')
    real_grub_mkconfig(root, programs)
    subprocess.run([programs / "update-grub"], check=True, capture_output=True)
    menu = root / "boot/grub/grub.cfg"
    before, text = snapshot(root), menu.read_text()
    assert text.count(WORD) >= 3
    done = apply(root, live=True)
    assert done.verified
    assert "Renewed the boot menu." in done.changes
    assert WORD not in menu.read_text()
    assert menu.read_text() == text.replace(f" {WORD}", "")
    undo(root, live=True)
    assert snapshot(root) == before


def test_the_initramfs_is_made_anew_and_looked_into(tree: Tree, programs: Path) -> None:
    root = tree(word="quiet")
    put(root, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    put(root, "/usr/lib/modprobe.d/vendor.conf", "options virtio_pci force_legacy=1\noptions x y=1\n")
    update_initramfs(root, programs)
    before = snapshot(root)
    done = apply(root, live=True)
    assert done.verified
    assert "Renewed the initramfs of every kernel." in done.changes
    undo(root, live=True)
    assert snapshot(root) == before


def test_an_initramfs_without_the_option_is_left_alone(tree: Tree, programs: Path) -> None:
    root = tree(word="quiet")
    update_initramfs(root, programs)
    put(root, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    program(programs / "update-initramfs", "#!/bin/sh\nexit 1\n")
    done = apply(root, live=True)
    assert done.verified
    assert not any("initramfs" in change for change in done.changes)


def test_the_initramfs_of_a_mounted_image_is_left_to_that_system(tree: Tree, programs: Path) -> None:
    root = tree(word="quiet")
    put(root, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    update_initramfs(root, programs)
    done = apply(root)
    assert not done.verified
    assert f"/boot/initrd.img-{RELEASE} still holds the option" in done.why
    assert f"chroot {root} update-initramfs -u -k all" in done.next_steps[0]


@pytest.mark.parametrize("failing", ["update-grub", "update-initramfs"])
def test_a_program_that_fails_half_way_leaves_everything_as_it_was(tree: Tree, programs: Path, failing: str) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    real_grub_mkconfig(root, programs)
    update_initramfs(root, programs)
    subprocess.run([programs / "update-grub"], check=True, capture_output=True)
    before = snapshot(root)
    working = (programs / failing).read_text()
    once = f"if [ ! -e {programs}/failed ]; then touch {programs}/failed; echo 'No space left' >&2; exit 1; fi\n"
    program(programs / failing, working.replace("\n", f"\n{once}", 1))
    with pytest.raises(Missing, match="No space left") as caught:
        apply(root, live=True)
    assert "What was done was undone" in (caught.value.hint or "")
    assert snapshot(root) == before


def test_a_program_that_does_not_do_its_work_is_found_out(tree: Tree, programs: Path) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/boot/grub/grub.cfg", f"linux /x {WORD}\n")
    program(programs / "update-grub", "#!/bin/sh\nexit 0\n")
    before = snapshot(root)
    with pytest.raises(BadInput, match="still asks for force_legacy"):
        apply(root, live=True)
    assert snapshot(root) == before


def test_without_a_program_for_the_initramfs_nothing_is_begun(
    tree: Tree, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(word="quiet")
    put(root, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    update_initramfs(root, programs)
    before = snapshot(root)
    monkeypatch.setattr("ejectable.remedies.boot_images.which", lambda _: None)
    with pytest.raises(Missing, match="no program for it was found"):
        apply(root, live=True)
    assert snapshot(root) == before


def test_killed_half_way_it_is_taken_back_by_the_next_run(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/etc/kernel/cmdline", f"ro {WORD}\n")
    before = snapshot(root)
    code = IN_A_CHILD + (
        "import sys, time; from ejectable.remedies.force_legacy import ForceLegacy as F; "
        "F._look_again = lambda *_: (print('changed', flush=True), time.sleep(60)); "
        "from ejectable.cli.app import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fix", "force-legacy", "--apply", "--root", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "changed\n"
    assert snapshot(root) != before
    process.kill()
    process.wait()
    process.stdout.close()
    undone = undo(root)
    assert any("/etc/default/grub is as it was before" in change for change in undone.changes)
    assert snapshot(root) == before


def test_a_full_disk_half_way_leaves_everything_as_it_was(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    put(root, "/etc/kernel/cmdline", f"ro {WORD}\n")
    before = snapshot(root)
    written: list[str] = []
    real = Directory.write

    def nearly_full(self: Directory, name: str, data: bytes, mode: int = 0o644) -> None:
        if name == "cmdline" and not written:
            written.append(name)
            raise OSError(28, "No space left on device")
        real(self, name, data, mode=mode)

    monkeypatch.setattr(Directory, "write", nearly_full)
    with pytest.raises(Missing, match="No space left"):
        apply(root)
    assert written
    assert snapshot(root) == before


def test_on_the_command_line_the_code_is_the_machines_word(tree: Tree) -> None:
    root = tree()
    put(root, "/etc/default/grub", GRUB)
    command = [
        sys.executable,
        "-m",
        "ejectable",
        "fix",
        "force-legacy",
        "--root",
        str(root),
        "--offline",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, json.loads(document.schema("fix")))
    assert answer["plan"][0]["state"] == "possible"
