# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps a kernel from taking the module is named before anything is built, each with the way out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.trees import headers
from ejectable.errors import Missing
from ejectable.remedies import Request
from ejectable.remedies.live import Live, guards
from ejectable.remedies.live.toolchain import compiler_for, headers_package, read_headers
from tests.host.trees import RELEASE
from tests.remedies.live_machine import MARK, change_headers, machine, situation

pytestmark = [pytest.mark.kernels, pytest.mark.guest]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return machine(tmp_path)


def write(path: str, text: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).unlink(missing_ok=True)
        (tree / path).write_text(text)

    return change


def gone(path: str) -> Callable[[Path], None]:
    return lambda tree: (tree / path).unlink()


def other_compiler(tree: Path) -> None:
    number = "CONFIG_GCC_VERSION="
    change_headers(tree, "include/config/auto.conf", lambda text: text.replace(f"{number}120200", f"{number}990100"))


def no_headers(tree: Path) -> None:
    shutil.rmtree(tree / "lib/modules" / RELEASE / "build")


def of_another_kernel(tree: Path) -> None:
    named = "include/generated/utsrelease.h"
    change_headers(tree, named, lambda text: text.replace(RELEASE, "6.1.0-51-cloud-amd64"))


def live_patch(tree: Path) -> None:
    write("sys/kernel/livepatch/lkp_1/enabled", "1\n")(tree)
    (tree / "sys/kernel/livepatch/lkp_1/virtio_pci/vp_del_vqs,1").mkdir(parents=True)


# What is wrong, what is said of it, and of the way out.
WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "container": (write("run/systemd/container", "lxc\n"), "container (lxc)", "host"),
    "oopsed": (write("proc/sys/kernel/tainted", "4224\n"), "Oops already", "Reboot"),
    "live patch": (live_patch, "A live patch is there already (lkp_1: virtio_pci/vp_del_vqs)", "ejectable check"),
    "modules disabled": (write("proc/sys/kernel/modules_disabled", "1\n"), "kernel.modules_disabled=1", "reboot"),
    "no modules": (gone("proc/modules"), "takes no modules", "reboot"),
    "no tracing": (
        write("proc/sys/kernel/ftrace_enabled", "0\n"),
        "kernel.ftrace_enabled=0",
        "sysctl kernel.ftrace_enabled=1",
    ),
    "panic on taint": (write("proc/cmdline", "ro panic_on_taint=0x1000,nousertaint"), "panic_on_taint=1000", "Remove"),
    "Secure Boot": (
        write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        "Only signed modules are taken (the kernel is locked down (integrity)",
        "mokutil --import",
    ),
    "sig_enforce": (
        write("sys/module/module/parameters/sig_enforce", "Y\n"),
        "module.sig_enforce is on",
        "openssl req",
    ),
    "confidentiality": (
        write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n"),
        "its memory cannot be read",
        "lockdown at `integrity`",
    ),
    "no types": (gone("sys/kernel/btf/vmlinux"), "/sys/kernel/btf/vmlinux", ""),
    "no memory": (gone("proc/kcore"), "/proc/kcore is not there", ""),
    "no headers": (no_headers, f"The headers of kernel {RELEASE} are not installed", f"linux-headers-{RELEASE}"),
    "other headers": (of_another_kernel, "has the headers of 6.1.0-51-cloud-amd64", f"linux-headers-{RELEASE}"),
    "compiler": (other_compiler, "gcc 99 was not found (gcc is 12", "apt-get install gcc-99"),
    "crashed before": (
        write(MARK, "8d1f0e6c-0000-4000-8000-000000000000 6.1.0-50-cloud-amd64 1\n"),
        "The last 2 boots that loaded the module (kernel 6.1.0-50-cloud-amd64) did not end in good order",
        f"sudo rm /{MARK}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_obstacle_is_named_with_its_way_out(tree: Path, name: str) -> None:
    change, said, way_out = WRONG[name]
    assert not guards.obstacles(situation(tree)), "nothing is in the way of the machine as it was captured"
    change(tree)
    found = guards.obstacles(situation(tree))
    assert [error for error in found if said in error.message and way_out in (error.hint or "")], [
        (error.message, error.hint) for error in found
    ]


@pytest.mark.parametrize("name", ["Secure Boot", "no headers", "crashed before", "panic on taint"])
def test_the_plan_says_that_it_is_impossible_and_why(tree: Path, name: str) -> None:
    change, said, way_out = WRONG[name]
    change(tree)
    line = Live().plan(situation(tree), Request())
    assert line.state == "impossible"
    assert said in line.why
    assert way_out in line.why
    assert not line.verified


def test_what_persist_needs_is_named_only_where_it_is_asked_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = situation(tree)
    monkeypatch.setattr("ejectable.remedies.live.persist.which", lambda _: None)
    assert not guards.obstacles(looked)
    [error] = guards.obstacles(looked, lasting=True)
    assert "`dkms` was not found" in error.message
    assert "apt-get install dkms" in str(error.hint)
    monkeypatch.undo()
    [error] = guards.obstacles(looked, lasting=True)
    assert "not booted by systemd" in error.message
    (tree / "run/systemd/system").mkdir(parents=True)
    assert not guards.obstacles(looked, lasting=True)


def test_the_plan_of_a_machine_that_can_be_repaired_is_proven(tree: Path) -> None:
    looked = situation(tree)
    line = Live().plan(looked, Request())
    assert (line.state, line.commands) == ("possible", ("sudo ejectable fix live --apply",))
    assert line.verified is looked.facts.superuser
    assert "no reboot" in line.cost
    assert "tainted" in line.cost


def test_the_plan_of_a_repaired_machine_is_done(tmp_path: Path) -> None:
    line = Live().plan(situation(machine(tmp_path, "repaired")), Request())
    assert (line.state, line.verified) == ("done", True)


def test_an_enrolled_key_is_taken_for_signing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG["sig_enforce"][0](tree)
    for name in ("mok.key", "mok.pub"):
        write(f"var/lib/dkms/{name}", "key\n")(tree)
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    tool = place / "mokutil"
    tool.write_text("#!/bin/sh\necho $3 is not enrolled\n")
    tool.chmod(0o755)
    [error] = guards.obstacles(situation(tree))
    assert "is not enrolled" in error.message
    tool.write_text("#!/bin/sh\necho $3 is already enrolled; exit 1\n")
    assert not guards.obstacles(situation(tree))


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt-get install linux-headers-6.8.0-31-generic"),
        ('ID="rhel"\n', "sudo dnf install kernel-devel-6.8.0-31-generic"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install kernel-generic-devel"),
        ("ID=arch\n", "Install the headers (or -devel package) of kernel 6.8.0-31-generic."),
    ],
)
def test_the_package_of_the_headers_is_named_for_each_kind_of_system(tree: Path, os_release: str, command: str) -> None:
    write("etc/os-release", os_release)(tree)
    assert headers_package(situation(tree).root, "6.8.0-31-generic", None) == command


def test_the_compiler_of_the_kernel_is_found() -> None:
    found = read_headers(headers(RELEASE), RELEASE)
    assert (found.family, found.major) == ("gcc", "12")
    assert compiler_for(found).variables == ("CC=gcc-12",)


def test_a_folder_that_is_no_tree_of_headers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no complete tree of headers"):
        read_headers(tmp_path, RELEASE)
