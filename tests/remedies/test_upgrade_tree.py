# SPDX-License-Identifier: GPL-2.0-or-later
"""Of a mounted image or a captured tree, the plan tells manager, flavour and commands, and runs nothing of it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import WrongUsage
from ejectable.model import Remedy
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.upgrade import upgrade
from ejectable.remedies.upgrade.choice import manager_of
from tests.host.trees import RELEASE, Machine, affected_module, boot_image
from tests.one import the_first

pytestmark = pytest.mark.kernels
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a package manager was chosen for a tree")

    monkeypatch.setattr(upgrade, "select", forbidden)

    def build(**options: object) -> Path:
        options.setdefault("module", affected_module())
        return Machine(**options).build(tmp_path / "machine")  # type: ignore[arg-type]  # the options of Machine

    return build


def _dpkg(root: Path, package: str = f"linux-image-{RELEASE}") -> None:
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / f"{package}.list").write_text(f"/.\n/boot\n/boot/vmlinuz-{RELEASE}\n")
    (root / "var/lib/dpkg/status").write_text(f"Package: {package}\nStatus: install ok installed\n")


def _rpm(root: Path, system: str) -> None:
    folder = root / "usr/lib/sysimage/rpm"
    folder.mkdir(parents=True)
    (folder / "rpmdb.sqlite").touch()
    (root / "etc/os-release").write_text(system)


def planned(root: Path) -> Remedy:
    situation = Situation(host.Root(root), the_first(), cache=False)
    (line,) = execute.plan(situation, Request(), ["upgrade"])
    return line


def test_a_debian_tree_names_apt_the_package_and_the_flavour(tree: Tree) -> None:
    root = tree()
    _dpkg(root)
    line = planned(root)
    assert (line.state, line.verified) == ("impossible", False)
    assert "What apt offers cannot be asked from here" in line.why
    assert f"package linux-image-{RELEASE}, flavour cloud-amd64" in line.details[0]
    assert line.commands[0] == "ssh -t web-1 'sudo apt-get update'"
    assert "apt-cache depends --recurse --important linux-image-cloud-amd64 | grep" in line.commands[1]
    assert line.commands[2:] == (
        "scp -r web-1:kernel . && ejectable kernel kernel",
        "ssh -t web-1 'sudo apt-get install linux-image-cloud-amd64'  # if it is fixed",
    )
    assert not [one for one in line.commands if not one.startswith(("ssh -t web-1 ", "scp -r web-1:"))], (
        "none is for here"
    )
    for command in line.commands:
        assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize(
    ("system", "manager", "command"),
    [
        ('ID=fedora\nPRETTY_NAME="Fedora Linux 40"\n', "dnf", "dnf download kernel-core kernel-modules-core"),
        (
            'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n',
            "zypper",
            "zypper --pkg-cache-dir . download kernel-cloud-amd64",
        ),
    ],
    ids=["dnf", "zypper"],
)
def test_a_tree_with_the_database_of_rpm_names_its_manager(tree: Tree, system: str, manager: str, command: str) -> None:
    root = tree()
    _rpm(root, system)
    assert manager_of(host.Root(root), RELEASE) == manager
    line = planned(root)
    assert f"its package manager is {manager}" in line.details[0]
    assert command in line.commands[1]


def test_a_tree_without_any_package_database_is_said_to_have_none(tree: Tree) -> None:
    line = planned(tree())
    assert line.state == "impossible"
    assert "No package manager that we know" in line.why


def test_a_mounted_image_gets_commands_that_go_through_chroot(tree: Tree) -> None:
    root = tree(procfs=False, sysfs=False)
    _dpkg(root)
    line = planned(root)
    assert line.commands[0].startswith(
        f"sudo chroot {root} sh -c 'mkdir -p /root/kernel && cd /root/kernel && apt-get update"
    )
    assert line.commands[1] == f"ejectable kernel {root}/root/kernel"
    assert all(subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0 for command in line.commands)


def test_a_kernel_file_that_is_named_for_another_release_is_not_offered(tree: Tree) -> None:
    root = tree()
    _dpkg(root)
    release = RELEASE.replace("-50-", "-99-")
    shutil.copy(boot_image(), root / f"boot/vmlinuz-{release}")
    folder = root / f"usr/lib/modules/{release}/kernel/drivers/virtio"
    folder.mkdir(parents=True)
    shutil.copy(affected_module("fixed"), folder)
    line = planned(root)
    assert line.state == "impossible"
    # The code that such an image loads is that of its own release.
    assert f"/boot/vmlinuz-{release} is installed and was not booted yet: affected" in " ".join(line.details)


def test_a_module_that_was_replaced_on_disk_does_not_make_the_running_kernel_good(tree: Tree) -> None:
    root = tree()
    _dpkg(root)
    folder = root / f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio"
    shutil.copy(affected_module("fixed"), folder / "virtio_pci.ko")
    assert planned(root).state != "done"


def test_a_fixed_kernel_needs_nothing(tree: Tree) -> None:
    line = planned(tree(module=affected_module("fixed")))
    assert (line.state, line.verified, line.commands) == ("done", True, ())
    assert RELEASE in line.why


def test_in_a_container_it_is_the_hosts_kernel(tree: Tree) -> None:
    line = planned(tree(container="docker"))
    assert line.state == "impossible"
    assert "its host's" in line.why


def test_a_tree_is_never_installed_into(tree: Tree) -> None:
    root = tree()
    _dpkg(root)
    with pytest.raises(WrongUsage, match="on the machine that it runs on only"):
        execute.apply(Situation(host.Root(root), the_first(), cache=False), "upgrade", Request())
    assert not (root / "var/lib/ejectable/changes").exists()
