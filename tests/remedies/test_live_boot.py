# SPDX-License-Identifier: GPL-2.0-or-later
"""What stays on the disk: the guard loads no module after a crash, DKMS builds it for one kernel only."""

import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from corpus.live_modules import target_of_debian
from corpus.trees import headers
from ejectable import __version__
from ejectable.remedies.live.persist import dkms_conf
from ejectable.remedies.live.target import copy_sources, modinfo
from ejectable.remedies.live.toolchain import compiler_for, read_headers

RELEASE, OTHER = "6.1.0-50-cloud-amd64", "6.1.0-56-amd64"
KERNEL_ID, DRIVER_ID = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
THIS_BOOT, EARLIER = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
BOOT = resources.files("ejectable.remedies.live") / "boot"


class Guard:
    """guard.sh with its paths led to a folder, and a modprobe that does as it is told."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "live-loaded"
        self.loaded = folder / "ejectable_live"
        self.boot = folder / "boot_id"
        self.boot.write_text(f"{THIS_BOOT}\n")
        self.seen = folder / "seen"
        self.notes, self.driver_note = folder / "notes", folder / "driver-note"
        self.notes.write_bytes(b"\4\0\0\0GNU\0" + bytes.fromhex(KERNEL_ID))
        self.driver_note.write_bytes(b"\4\0\0\0GNU\0" + bytes.fromhex(DRIVER_ID))
        text = (BOOT / "guard.sh").read_text()
        for path, here in (
            ("/var/lib/ejectable/live-loaded", self.mark),
            ("/sys/module/ejectable_live", self.loaded),
            ("/proc/sys/kernel/random/boot_id", self.boot),
            ("/sys/kernel/notes", self.notes),
            ("/sys/module/virtio_pci/notes/.note.gnu.build-id", self.driver_note),
        ):
            assert path in text
            text = text.replace(path, str(here))
        self._script = folder / "guard.sh"
        self._script.write_text(text)
        self._bin = folder / "bin"
        self._bin.mkdir()
        self.modprobe(f"cat {self.mark} >{self.seen}; mkdir {self.loaded}")
        self._program("modinfo", f"case $2 in *driver*) echo {DRIVER_ID} ;; *) echo {KERNEL_ID} ;; esac")

    def modprobe(self, does: str) -> None:
        self._program("modprobe", does)

    def _program(self, name: str, does: str) -> None:
        program = self._bin / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)

    def __call__(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self._script), verb],
            env={"PATH": f"{self._bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def crash(self, *, boot: str) -> None:
        """The machine goes down hard, and boots again."""
        self.boot.write_text(f"{boot}\n")
        if self.loaded.exists():
            self.loaded.rmdir()


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(tmp_path)


class TestGuard:
    def test_the_mark_is_on_the_disk_before_the_module_is_in_the_kernel(self, guard: Guard) -> None:
        assert guard("start").returncode == 0
        assert guard.seen.read_text().split()[0] == THIS_BOOT, "as modprobe saw it"
        assert guard.loaded.exists()

    def test_after_one_crash_it_is_loaded_once_more_and_after_two_it_is_not(self, guard: Guard) -> None:
        assert guard("start").returncode == 0
        guard.crash(boot=EARLIER)
        again = guard("start")
        assert again.returncode == 0
        assert "did not end in good order" in again.stderr
        assert guard.seen.read_text().split() == [EARLIER, os.uname().release, "1"]
        for boot in ("33333333", "44444444"):
            guard.crash(boot=f"{boot}-0000-4000-8000-000000000000")
            done = guard("start")
            assert done.returncode == 1
            assert "The last 2 boots that loaded ejectable_live did not end in good order" in done.stderr
            assert not guard.loaded.exists()
            # Neither the timer nor a clean shutdown of this boot takes away what another boot has left.
            assert guard("settle").returncode == 0
            assert guard("stop").returncode == 0
        assert guard.mark.exists()

    def test_a_boot_that_ends_well_makes_the_one_before_forgotten(self, guard: Guard) -> None:
        guard("start")
        guard.crash(boot=EARLIER)
        guard("start")
        guard("stop")
        guard.crash(boot="33333333-0000-4000-8000-000000000000")
        assert guard("start").returncode == 0
        assert guard.seen.read_text().split()[2] == "0"

    @pytest.mark.parametrize("other", ["kernel", "driver"])
    def test_another_build_gets_no_module_and_no_mark(self, guard: Guard, other: str) -> None:
        note = guard.notes if other == "kernel" else guard.driver_note
        note.write_bytes(note.read_bytes()[:-1] + b"\0")
        done = guard("start")
        assert done.returncode == 1
        assert "another build" in done.stderr
        assert not guard.loaded.exists()
        assert not guard.mark.exists()

    def test_a_damaged_mark_counts_as_a_strike(self, guard: Guard) -> None:
        guard.mark.write_text("nonsense here x\n")
        assert guard("start").returncode == 0
        assert guard.seen.read_text().split()[2] == "1"

    @pytest.mark.parametrize("end", ["stop", "settle"])
    def test_after_a_clean_shutdown_or_half_an_hour_it_is(self, guard: Guard, end: str) -> None:
        guard("start")
        assert guard(end).returncode == 0
        assert not guard.mark.exists()
        guard.crash(boot=EARLIER)
        assert guard("start").returncode == 0
        assert guard.loaded.exists()

    def test_a_module_that_the_kernel_refuses_leaves_no_mark(self, guard: Guard) -> None:
        guard.modprobe("exit 3")
        assert guard("start").returncode == 3
        assert not guard.mark.exists()

    def test_a_module_that_is_loaded_is_left_alone(self, guard: Guard) -> None:
        guard.loaded.mkdir()
        guard.modprobe("exit 3")
        assert guard("start").returncode == 0

    def test_anything_else_is_wrong_usage(self, guard: Guard) -> None:
        assert guard("dance").returncode == 64


def test_it_is_loaded_when_the_mark_can_be_written_and_before_there_is_a_network() -> None:
    unit = (BOOT / "ejectable-live.service").read_text()
    assert "DefaultDependencies=no" in unit
    assert re.search(r"^After=local-fs\.target$", unit, re.MULTILINE)
    before = re.search(r"^Before=(.*)$", unit, re.MULTILINE)
    assert before
    assert {"sysinit.target", "network-pre.target", "remote-fs-pre.target", "shutdown.target"} == set(before[1].split())
    assert "WantedBy=sysinit.target" in unit
    assert "WantedBy=multi-user.target" not in unit


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    for file in BOOT.iterdir():
        if file.name.endswith((".service", ".timer")):
            (tmp_path / file.name).write_text(file.read_text().replace("@RELEASE@", RELEASE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "ejectable-live" in line]
    assert not complaints


class Dkms:
    """The machine's own dkms, with the module's sources, in trees of its own."""

    def __init__(self, folder: Path) -> None:
        self.built = folder / "dkms"
        self.source = folder / "src" / f"ejectable-live-{__version__}"
        self.source.mkdir(parents=True)
        target = target_of_debian(RELEASE)
        copy_sources(self.source, target)
        self.conf = self.source / "dkms.conf"
        self.conf.write_bytes(dkms_conf(target, compiler_for(read_headers(headers(RELEASE), RELEASE))))
        self._places = []
        for option, place in (("source", self.source.parent), ("dkms", self.built), ("install", folder / "install")):
            place.mkdir(exist_ok=True)
            self._places += [f"--{option}tree", str(place)]

    def __call__(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["dkms", verb, *words, *self._places], capture_output=True, text=True, check=False)

    def modules(self) -> list[Path]:
        return list(self.built.rglob("ejectable_live.ko"))


@pytest.fixture
def dkms(tmp_path: Path) -> Dkms:
    if shutil.which("dkms") is None:
        pytest.skip("dkms is not installed (apt-get install --no-install-recommends dkms)")
    return Dkms(tmp_path)


@pytest.mark.kernels
def test_dkms_builds_it_for_the_kernel_that_was_proven_and_for_no_other(dkms: Dkms) -> None:
    name = f"ejectable-live/{__version__}"
    assert dkms("add", name).returncode == 0
    built = dkms("build", name, "-k", RELEASE, "--kernelsourcedir", str(headers(RELEASE)))
    assert built.returncode == 0, built.stdout + built.stderr
    [module] = dkms.modules()
    assert modinfo(module.read_bytes())["ejectable_release"] == RELEASE
    refused = dkms("build", name, "-k", OTHER, "--kernelsourcedir", str(headers(OTHER)))
    assert refused.returncode != 0
    assert "BUILD_EXCLUSIVE" in refused.stdout + refused.stderr
    assert len(dkms.modules()) == 1


@pytest.mark.kernels
def test_a_kernel_that_is_installed_beside_it_is_none_of_its_business(dkms: Dkms) -> None:
    # What the hooks of a kernel package run (/etc/kernel/postinst.d/dkms): it must end with 0, or dpkg fails.
    assert dkms("add", f"ejectable-live/{__version__}").returncode == 0
    for release in (OTHER, RELEASE):
        done = dkms("autoinstall", "-k", release, "--kernelsourcedir", str(headers(release)))
        assert done.returncode == 0, done.stdout + done.stderr
    assert not dkms.modules(), "and nothing is built unless it is asked for"
