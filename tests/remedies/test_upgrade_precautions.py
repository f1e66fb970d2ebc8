# SPDX-License-Identifier: GPL-2.0-or-later
"""Before anything is installed: who holds the lock is named, and a full file system is noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from ejectable import host
from ejectable.assess.initramfs import names
from ejectable.errors import Missing
from ejectable.remedies.upgrade.backend import Effect, Offer, Package
from ejectable.remedies.upgrade.choice import manager_of
from ejectable.remedies.upgrade.dnf import _effect
from ejectable.remedies.upgrade.folders import private
from ejectable.remedies.upgrade.precautions import free, holder, room
from ejectable.remedies.upgrade.rollback import refusal

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""


def test_whoever_holds_a_lock_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    assert holder(host.Root("/"), [str(lock)]) is None
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        name = Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8").strip()
        with pytest.raises(Missing, match=rf"busy: {name} \(process {process.pid}\) holds {lock}"):
            free(host.Root("/"), [str(tmp_path / "absent"), str(lock)])
        process.kill()
    assert holder(host.Root("/"), [str(lock)]) is None


def test_a_file_with_the_number_of_a_process_counts_while_that_lives(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        (tmp_path / "zypp.pid").write_text(f"{process.pid}\n")
        assert f"(process {process.pid})" in (holder(host.Root("/"), [str(tmp_path / "zypp.pid")]) or "")
        process.kill()
    assert holder(host.Root("/"), [str(tmp_path / "zypp.pid")]) is None
    for nonsense in ("", "-1", "0", "99999999999999999999", "x"):
        (tmp_path / "zypp.pid").write_text(nonsense)
        assert holder(host.Root("/"), [str(tmp_path / "zypp.pid")]) is None


def _offer(size: int, installed_size: int) -> Offer:
    image = Package("linux-image-9", "9", "amd64", size=size, installed_size=installed_size)
    return Offer(image, "9", (), (image,))


def test_a_kernel_that_does_not_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    for folder in ("boot", "lib/modules", "downloads"):
        (tmp_path / folder).mkdir(parents=True)
    root = host.Root(tmp_path)
    room(root, "8", _offer(1 << 20, 1 << 20), tmp_path / "downloads")
    with pytest.raises(Missing, match=r"is too small: linux-image-9 9 needs \d{10,} MiB there, and \d+ MiB are free"):
        room(root, "8", _offer(1 << 20, 1 << 60), tmp_path / "downloads")
    with pytest.raises(Missing, match="downloads is too small"):
        room(root, "8", _offer(1 << 60, 1 << 20), tmp_path / "downloads")


def test_an_initramfs_of_another_release_or_for_a_dump_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    for name in ("initrd.img-6.1.0-50-amd64", "initramfs-6.8.5-301.fc40.x86_64.img", "initrd-6.1.0-56-amd64-kdump"):
        (tmp_path / "boot" / name).touch()
    root = host.Root(tmp_path)
    assert names(root, "6.1.0-50-amd64") == ("initrd.img-6.1.0-50-amd64",)
    assert names(root, "6.8.5-301.fc40.x86_64") == ("initramfs-6.8.5-301.fc40.x86_64.img",)
    assert names(root, "6.1.0-56-amd64") == ()


def test_the_table_of_dnf_is_read_with_its_wrapped_and_replacing_rows() -> None:
    table = """\
Last metadata expiration check: 0:00:32 ago on Wed Nov 25 07:29:53 2026.
Dependencies resolved.
================================================================================
 Package                    Architecture  Version          Repository      Size
================================================================================
Installing:
 kernel-core                x86_64        6.1.0-56         kernels         11 M
     replacing  old-thing.x86_64 1-1
Upgrading:
 a-name-that-is-much-too-long-for-its-column-in-the-table
                            noarch        2-1              kernels        5.5 k
Installing dependencies:
 kernel-modules-core        x86_64        6.1.0-56         kernels        126 k
Removing unused dependencies:
 something                  x86_64        1-1              @System         10 k

Transaction Summary
================================================================================
Install  2 Packages
"""
    assert _effect(table) == Effect(
        ("kernel-core-6.1.0-56.x86_64", "kernel-modules-core-6.1.0-56.x86_64"),
        ("a-name-that-is-much-too-long-for-its-column-in-the-table-2-1.noarch",),
        ("old-thing.x86_64", "something-1-1.x86_64"),
    )


def test_the_kernel_that_runs_stays(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("6.1.0-56-amd64\n")
    root = host.Root(tmp_path)
    assert "6.1.0-56-amd64" in (refusal(root, "apt", ["zstd", "linux-image-6.1.0-56-amd64"]) or "")
    assert refusal(root, "apt", ["linux-image-6.1.0-57-amd64"]) is None


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    program = (
        "import os, signal\nfrom ejectable.remedies.upgrade.folders import private\n"
        "with private() as folder:\n    (folder / 'kernel.deb').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "kernel.deb").exists()
    with private() as mine:
        assert not left.exists()
        with private() as other:
            assert mine.exists()
            assert mine != other
    assert not list(tmp_path.iterdir())


def test_the_tool_rpm_on_debian_does_not_make_it_a_system_of_rpms(tmp_path: Path) -> None:
    for path in ("var/lib/rpm/rpmdb.sqlite", "var/lib/dpkg/status", "etc/os-release"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("ID=debian\n")
    assert manager_of(host.Root(tmp_path), "6.9.0") == "apt"
    (tmp_path / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    assert manager_of(host.Root(tmp_path), "6.9.0") == "dnf"
