# SPDX-License-Identifier: GPL-2.0-or-later
"""What stays on the disk: the guard loads no module after a crash, DKMS builds it for one kernel only."""

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
        text = (BOOT / "guard.sh").read_text()
        for path, here in (
            ("/var/lib/ejectable/live-loaded", self.mark),
            ("/sys/module/ejectable_live", self.loaded),
            ("/proc/sys/kernel/random/boot_id", self.boot),
        ):
            assert path in text
            text = text.replace(path, str(here))
        self._script = folder / "guard.sh"
        self._script.write_text(text)
        self._bin = folder / "bin"
        self._bin.mkdir()
        self.modprobe(f"cat {self.mark} >{self.seen}; mkdir {self.loaded}")

    def modprobe(self, does: str) -> None:
        program = self._bin / "modprobe"
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

    def test_after_a_crash_it_is_not_loaded_again_and_says_so(self, guard: Guard) -> None:
        guard("start")
        guard.crash(boot=EARLIER)
        for _ in range(2):
            done = guard("start")
            assert done.returncode == 1
            assert "did not end in good order: it is not loaded again" in done.stderr
            assert not guard.loaded.exists()
            # Neither the timer nor a clean shutdown of this boot takes away what another boot has left.
            assert guard("settle").returncode == 0
            assert guard("stop").returncode == 0
        assert guard.mark.exists()

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


@pytest.mark.kernels
def test_dkms_builds_it_for_the_kernel_that_was_proven_and_for_no_other(tmp_path: Path) -> None:
    if shutil.which("dkms") is None:
        pytest.skip("dkms is not installed (apt-get install --no-install-recommends dkms)")
    source = tmp_path / "src" / f"ejectable-live-{__version__}"
    source.mkdir(parents=True)
    target = target_of_debian(RELEASE)
    copy_sources(source, target)
    (source / "dkms.conf").write_bytes(dkms_conf(target, compiler_for(read_headers(headers(RELEASE), RELEASE))))
    places = []
    for name in ("source", "dkms", "install"):
        folder = tmp_path / ("src" if name == "source" else name)
        folder.mkdir(exist_ok=True)
        places += [f"--{name}tree", str(folder)]

    def dkms(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["dkms", verb, f"ejectable-live/{__version__}", *words, *places]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert dkms("add").returncode == 0
    built = dkms("build", "-k", RELEASE, "--kernelsourcedir", str(headers(RELEASE)))
    assert built.returncode == 0, built.stdout + built.stderr
    [module] = (tmp_path / "dkms").rglob("ejectable_live.ko")
    assert modinfo(module.read_bytes())["ejectable_release"] == RELEASE
    refused = dkms("build", "-k", OTHER, "--kernelsourcedir", str(headers(OTHER)))
    assert refused.returncode != 0
    assert "BUILD_EXCLUSIVE" in refused.stdout + refused.stderr
    assert len(list((tmp_path / "dkms").rglob("ejectable_live.ko"))) == 1
