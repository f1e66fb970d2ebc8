# SPDX-License-Identifier: GPL-2.0-or-later
"""The upgrade through the real apt, dnf and zypper, in systems that are thrown away afterwards."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus import kernel_packages
from corpus.chroots import Box, Kind, usable
from corpus.upgrade_proof import Row, fix, image_package, nothing_done, packages, whole_story

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(bool(usable()), reason=usable() or "")]
RUNNING, _, NEWEST = kernel_packages.RELEASES
IMAGE = f"linux-image-{NEWEST}"


def _box(kind: Kind) -> Iterator[Box]:
    with Box.make(kind) as box:
        box.install_running()
        hook = box.root / "etc/kernel/postinst.d/initramfs-tools"
        if hook.exists():
            hook.write_text("#!/bin/sh\n")  # no initramfs is made here: the slow proofs make one
        yield box


@pytest.fixture
def apt() -> Iterator[Box]:
    yield from _box("apt")


@pytest.mark.parametrize("kind", ["apt", "dnf", "zypper"])
def test_a_fixed_kernel_is_planned_installed_verified_and_taken_back(kind: Kind) -> None:
    for box in _box(kind):
        found = packages(kind, NEWEST, "fixed")
        box.offer(*found)
        row = Row(kind)
        whole_story(box, row, image_package(found))
        assert not row.wrong


def test_a_newest_kernel_with_the_defect_is_refused_and_nothing_is_installed(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "affected"))
    _, plan, _ = fix(apt)
    assert plan["plan"][0]["state"] == "impossible"
    assert f"{IMAGE} {kernel_packages.version_of(NEWEST)}, still has the defect" in plan["plan"][0]["why"]
    row = Row("apt")
    nothing_done(apt, row, apt.state(), "still has the defect")
    assert not row.wrong


def test_a_hold_is_respected_and_named(apt: Box, tmp_path: Path) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"), kernel_packages.meta_deb(NEWEST, tmp_path))
    old = kernel_packages.meta_deb(RUNNING, tmp_path)
    (apt.root / "tmp" / old.name).write_bytes(old.read_bytes())
    apt.checked("dpkg", "--install", f"/tmp/{old.name}")
    _, free, _ = fix(apt)
    assert (free["plan"][0]["state"], free["plan"][0]["verified"]) == ("possible", True)
    assert "through linux-image-cloud-amd64" in " ".join(free["plan"][0]["details"])
    apt.checked("apt-mark", "hold", "linux-image-cloud-amd64")
    code, held, _ = fix(apt)
    assert code == 2
    assert held["plan"][0]["state"] == "impossible"
    assert "linux-image-cloud-amd64 is held (apt-mark hold)" in held["plan"][0]["why"]
    assert held["plan"][0]["commands"] == ["sudo apt-mark unhold linux-image-cloud-amd64"]
    row = Row("apt")
    nothing_done(apt, row, apt.state(), "is held")
    assert not row.wrong


def test_a_pin_is_respected_and_named(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"))
    apt.write("/etc/apt/preferences.d/kernel", f"Package: {IMAGE}\nPin: version *\nPin-Priority: -1\n")
    _, plan, _ = fix(apt)
    assert plan["plan"][0]["state"] == "impossible"
    assert "apt-cache policy" in " ".join([plan["plan"][0]["why"], *plan["plan"][0]["commands"]])


def test_offline_says_what_the_lists_know_and_that_it_was_not_verified(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"))
    _, plan, _ = fix(apt, "--offline")
    line = plan["plan"][0]
    assert (line["state"], line["verified"]) == ("possible", False)
    assert f"{IMAGE} {kernel_packages.version_of(NEWEST)} is on offer" in line["why"]
    assert "not verified: --offline forbids downloading it" in line["why"]
    assert line["commands"] == ["sudo ejectable fix upgrade --apply"]


def test_lists_that_are_old_are_said_to_be(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"))
    for path in ("var/lib/apt/lists", "var/lib/apt/lists/partial"):
        subprocess.run(["touch", "-d", "9 days ago", apt.root / path], check=True)
    _, offline, _ = fix(apt, "--offline")
    assert "are 9 days old, and --offline forbids" in " ".join(offline["plan"][0]["details"])
    _, plan, _ = fix(apt)
    assert "are 9 days old: newer ones were fetched for this answer." in " ".join(plan["plan"][0]["details"])
    assert plan["plan"][0]["verified"]
    assert (apt.root / "var/lib/apt/lists/partial").stat().st_mtime < (apt.root / "srv/repository").stat().st_mtime


def test_an_installation_that_would_remove_something_is_refused(apt: Box, tmp_path: Path) -> None:
    control = tmp_path / "package/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: {IMAGE}\nVersion: 6.1.192-2\nArchitecture: amd64\nMaintainer: a test <test@example.org>\n"
        "Conflicts: zstd\nDescription: a kernel that is at odds with something\n"
    )
    subprocess.run(["dpkg-deb", "-b", tmp_path / "package", tmp_path / "kernel.deb"], check=True, capture_output=True)
    apt.offer(tmp_path / "kernel.deb")
    _, plan, _ = fix(apt)
    assert plan["plan"][0]["state"] == "impossible"
    assert "could not be decided" in plan["plan"][0]["why"]
    assert "holds no kernel" in plan["plan"][0]["why"]
    row = Row("apt")
    nothing_done(apt, row, apt.state(), "would also remove zstd")
    assert not row.wrong


def test_a_package_with_another_kernel_than_its_name_says_is_unknown(apt: Box, tmp_path: Path) -> None:
    work = tmp_path / "work"
    subprocess.run(["dpkg-deb", "-R", kernel_packages.deb(NEWEST, "fixed"), work], check=True)
    control = work / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"Package: {IMAGE}", "Package: linux-image-6.1.0-99-cloud-amd64"))
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", work, tmp_path / "kernel.deb"], check=True, capture_output=True)
    apt.offer(tmp_path / "kernel.deb")
    _, plan, _ = fix(apt)
    assert plan["plan"][0]["state"] == "impossible"
    assert f"its name says 6.1.0-99-cloud-amd64, and the kernel in it is {NEWEST}" in plan["plan"][0]["why"]


KILLED = """
import os, signal, sys
from ejectable.remedies.upgrade import install
install._checked = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from ejectable.__main__ import main
sys.argv = ["ejectable", "fix", "upgrade", "--apply"]
main()
"""


def test_killed_after_the_installation_the_next_run_takes_it_back(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"))
    before = apt.state()
    killed = apt.run(sys.executable, "-c", KILLED)
    assert killed.code == -9, killed.err
    assert f"{IMAGE} " in apt.state()
    _, plan, _ = fix(apt)
    assert "`sudo ejectable fix upgrade --undo` takes it back" in " ".join(plan["notes"])
    code, _, said = fix(apt, "--undo")
    assert code == 0, said
    assert apt.state() == before


def test_what_runs_is_not_taken_back(apt: Box) -> None:
    apt.offer(kernel_packages.deb(NEWEST, "fixed"))
    assert fix(apt, "--apply")[0] == 0
    apt.write("/proc/sys/kernel/osrelease", f"{NEWEST}\n")
    code, _, said = fix(apt, "--undo")
    assert code == 64
    assert f"{IMAGE} is the kernel that runs" in said
    assert f"{IMAGE} " in apt.state()


def test_a_kernel_that_is_rebuilt_under_the_same_release_is_replaced_and_brought_back(apt: Box) -> None:
    old, new = kernel_packages.deb(RUNNING, "affected"), kernel_packages.deb(RUNNING, "fixed", version="6.1.176-2")
    apt.offer(old, new)
    before = apt.state()
    code, plan, said = fix(apt)
    assert (plan["plan"][0]["state"], plan["plan"][0]["verified"]) == ("possible", True), said
    code, found, said = fix(apt, "--apply")
    assert code == 0, said
    assert found["applied"]["verified"]
    assert f"linux-image-{RUNNING} 6.1.176-2" in apt.state()
    # The code that runs is on no disk any more, so it cannot be judged; what boots next can.
    code, plan, _ = fix(apt)
    assert code == 3
    # The box has no boot loader whose file says so.
    assert "It may boot next, but that is not certain" in plan["plan"][0]["why"]
    code, _, said = fix(apt, "--undo")
    assert code == 0, said
    assert apt.state() == before


def test_a_rebuild_is_not_installed_where_the_version_before_cannot_be_had_again(apt: Box) -> None:
    apt.offer(kernel_packages.deb(RUNNING, "fixed", version="6.1.176-2"))
    row = Row("apt")
    nothing_done(apt, row, apt.state(), "could not be taken back")
    assert not row.wrong
