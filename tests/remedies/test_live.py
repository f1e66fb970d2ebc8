# SPDX-License-Identifier: GPL-2.0-or-later
"""`fix live --apply` repairs and verifies; whatever fails half-way leaves the machine as it was, and says so."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from corpus.live_modules import any_hook, target_of_debian
from ejectable.cli.app import run
from ejectable.errors import EjectableError, Missing, WrongUsage
from ejectable.model import Status
from ejectable.remedies import Request
from ejectable.remedies.changes import Changes, interrupted
from ejectable.remedies.live import Live, persist
from ejectable.remedies.live.persist import dkms_conf
from ejectable.remedies.live.target import HEADER, Target, modinfo
from tests.host.trees import RELEASE
from tests.remedies.live_machine import MARK, apply, machine, programs, run_aside, said, situation, undo

pytestmark = [pytest.mark.kernels, pytest.mark.guest]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # No power is cut here, and a change is synced step by step: on a busy disk that takes minutes.
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return machine(tmp_path)


def work_on(tree: Path, monkeypatch: pytest.MonkeyPatch, mishap: str = "") -> None:
    for name, value in programs(tree.parent, tree, mishap).items():
        monkeypatch.setenv(name, value)


def as_before(tree: Path) -> bool:
    """Nothing is loaded, marked, or left of what was written."""
    left = [MARK, "sys/module/ejectable_live", "usr/src", "etc/systemd", "run/systemd/system/ejectable-live.service"]
    return not [name for name in left if (tree / name).exists()]


def test_apply_builds_loads_and_verifies_and_undo_brings_the_danger_back(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_on(tree, monkeypatch)
    done = apply(tree)
    assert done.verified
    assert "mitigated" in done.why
    assert [step for step in done.next_steps if "power on" in step and "kexec" in step and "hibernation" in step]
    assert situation(tree).kernel_status is Status.MITIGATED
    boot = (tree / "proc/sys/kernel/random/boot_id").read_text().strip()
    assert (tree / MARK).read_text() == f"{boot} {RELEASE} 0\n"
    carried = modinfo((tree.parent / "loaded.ko").read_bytes())
    target = target_of_debian(RELEASE)
    assert carried["ejectable_version"] == target.version
    assert carried["ejectable_driver_build_id"] == target.driver_build_id
    assert carried["ejectable_digest"] == target.hook.digest
    again = apply(tree)
    assert (again.changes, again.verified) == ((), True)

    back = undo(tree)
    assert "the danger is back: unplugging virtio1, virtio2 would crash" in back.why
    assert as_before(tree)
    assert situation(tree).kernel_status is Status.AFFECTED
    with pytest.raises(WrongUsage, match="nothing to undo"):
        undo(tree)


def test_a_kernel_that_refuses_the_module_is_left_as_it_was(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch, "reject")
    with pytest.raises(Missing, match="Key was rejected by service") as caught:
        apply(tree)
    assert "dmesg" in str(caught.value.hint)
    assert as_before(tree)
    assert not [line for line in said(tree.parent) if line.startswith("rmmod")], "there was nothing to unload"


def test_a_module_that_repairs_nothing_is_taken_out_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch, "useless")
    with pytest.raises(Missing, match="the machine is not repaired"):
        apply(tree)
    assert "rmmod ejectable_live" in said(tree.parent)
    assert as_before(tree)


def test_a_run_that_is_killed_after_loading_is_undone_by_the_next_one(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = run_aside(tree, programs(tree.parent, tree, "kill"))
    assert killed.returncode == -9, killed.stderr
    assert (tree / "sys/module/ejectable_live").exists()
    assert (tree / MARK).exists()
    assert interrupted(situation(tree).root)
    work_on(tree, monkeypatch)
    done = apply(tree)
    assert [line.split()[0] for line in said(tree.parent)] == ["insmod", "rmmod", "insmod"]
    assert done.verified


def test_a_build_that_fails_changes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch)
    broken = tree.parent / "bin/gcc-12"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = -dumpversion ] && echo 12 && exit\necho 'gcc: fatal error: no input' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    with pytest.raises(Missing, match=r"The module could not be built: .*fatal error") as caught:
        apply(tree)
    assert "Nothing was loaded" in str(caught.value.hint)
    assert as_before(tree)
    assert not said(tree.parent)


def test_a_module_that_will_not_go_is_not_called_gone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch)
    apply(tree)
    work_on(tree, monkeypatch, "stuck")
    with pytest.raises(EjectableError, match=r"in use|still loaded"):
        undo(tree)
    assert (tree / "sys/module/ejectable_live").exists()
    assert situation(tree).kernel_status is Status.MITIGATED
    assert said(tree.parent).count("rmmod ejectable_live") == 1
    work_on(tree, monkeypatch)
    assert undo(tree).verified, "it stayed on record, for another try"
    assert as_before(tree)


def next_boot(tree: Path, number: int) -> None:
    """The machine went down hard, and is up again: another boot, nothing loaded."""
    subprocess.run([str(tree.parent / "bin/rmmod")], check=True)  # the kernel's memory is as before
    boot = tree / "proc/sys/kernel/random/boot_id"
    boot.unlink()
    boot.write_text(f"{number:08}-0000-4000-8000-000000000000\n")


def test_the_mark_of_a_crash_outlives_what_undoes_the_interrupted_change(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for strikes in (1, 2):
        killed = run_aside(tree, programs(tree.parent, tree, "kill"))  # insmod, and everything stops
        assert killed.returncode == -9, killed.stderr
        work_on(tree, monkeypatch)
        next_boot(tree, strikes)
        with Changes.begin(situation(tree).root, "panic-policy", undo="none"):
            pass  # any remedy at all: it takes back what was interrupted, the module among it
        assert not interrupted(situation(tree).root)
        assert situation(tree).facts.live_repair.strikes == strikes
        run(["check", "--root", str(tree), "--format", "json", "--no-cache"])
        last = [note for note in json.loads(capsys.readouterr().out)["notes"] if "good order" in note]
        assert last
        assert ("not loaded any more" in last[0]) is (strikes == 2)
    with pytest.raises(Missing, match="last 2 boots that loaded the module"):
        apply(tree)
    assert "2 boots" in Live().plan(situation(tree), Request()).why


def test_what_is_taken_back_by_itself_unloads_nothing_after_an_oops(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_aside(tree, programs(tree.parent, tree, "kill")).returncode == -9
    (tree / "proc/sys/kernel/tainted").write_text("4224\n")
    work_on(tree, monkeypatch)
    with Changes.begin(situation(tree).root, "panic-policy", undo="none") as changes:
        assert "nothing is unloaded" in " ".join(changes.left)
    assert not [line for line in said(tree.parent) if line.startswith("rmmod")]
    assert (tree / "sys/module/ejectable_live").exists()


def test_a_mark_that_a_later_boot_has_left_goes_with_the_undoing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch)
    apply(tree)
    (tree / MARK).write_text(f"22222222-0000-4000-8000-000000000000 {RELEASE}\n")
    assert undo(tree).verified
    assert as_before(tree)


def test_nothing_is_unloaded_from_a_kernel_that_has_had_an_oops(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(tree, monkeypatch)
    apply(tree)
    (tree / "proc/sys/kernel/tainted").write_text("4224\n")
    with pytest.raises(Missing, match="Oops already"):
        undo(tree)
    assert (tree / "sys/module/ejectable_live").exists()


def test_a_kernel_that_is_not_affected_gets_no_module(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.host.captured import captured as fixed

    work_on(tree, monkeypatch)
    for name in ("proc/kcore", "proc/kallsyms", "sys/kernel/btf/virtio_pci"):
        (tree / name).unlink()
        (tree / name).write_bytes((fixed("fixed") / name).read_bytes())
    with pytest.raises(Missing, match="not proven to be affected"):
        apply(tree)
    assert as_before(tree)


class TestPersist:
    @pytest.fixture(autouse=True)
    def _systemd(self, tree: Path) -> None:
        (tree / "run/systemd/system").mkdir(parents=True)

    def test_it_is_built_by_dkms_for_this_kernel_alone_and_loaded_at_boot(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work_on(tree, monkeypatch)
        assert apply(tree, persist=True).verified
        [source] = (tree / "usr/src").iterdir()
        conf = (source / "dkms.conf").read_text()
        assert r'BUILD_EXCLUSIVE_KERNEL="^6\.1\.0-50-cloud-amd64$"' in conf
        assert not re.search(r"^\s*AUTOINSTALL", conf, re.MULTILINE), "any word means yes to DKMS"
        assert f'"{RELEASE}"' in (source / HEADER).read_text()
        unit = (tree / "etc/systemd/system/ejectable-live.service").read_text()
        assert f"ConditionKernelVersion=={RELEASE}\n" in unit
        calls = said(tree.parent)
        version = source.name.removeprefix("ejectable-live-")
        assert f"dkms add ejectable-live/{version}" in calls
        assert f"dkms install ejectable-live/{version} -k {RELEASE}" in calls
        assert "systemctl enable ejectable-live.service ejectable-live-settled.timer" in calls
        (tree / MARK).unlink()  # as the unit does half an hour later
        undo(tree)
        back = said(tree.parent)[len(calls) :]
        assert back == [
            "systemctl stop ejectable-live.service ejectable-live-settled.timer",
            "rmmod ejectable_live",
            "systemctl disable ejectable-live.service ejectable-live-settled.timer",
            "systemctl daemon-reload",  # when the units are gone
            f"dkms remove ejectable-live/{version} --all",
        ]
        assert as_before(tree)

    def test_the_configuration_of_an_earlier_version_is_named_and_mended_and_still_goes_with_the_undoing(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        work_on(tree, monkeypatch)
        with monkeypatch.context() as earlier:
            earlier.setattr(persist, "dkms_conf", lambda *words: dkms_conf(*words) + b'AUTOINSTALL="no"\n')
            apply(tree, persist=True)
        [conf] = (tree / "usr/src").glob("*/dkms.conf")
        path = f"/{conf.relative_to(tree)}"
        run(["check", "--root", str(tree), "--format", "json", "--no-cache"])
        document = json.loads(capsys.readouterr().out)
        assert [note for note in document["notes"] if path in note]
        assert [step for step in document["next_steps"] if "fix live --apply" in step]
        line = Live().plan(situation(tree), Request())
        assert (line.state, path in line.why) == ("possible", True)
        assert apply(tree).changes == (f"Mended {path}.",)
        assert not situation(tree).facts.live_repair.faulty_dkms
        assert "AUTOINSTALL=" not in conf.read_text()
        assert undo(tree).verified
        assert as_before(tree)

    @pytest.mark.parametrize("line", ['AUTOINSTALL=""', "AUTOINSTALL=", "# AUTOINSTALL=yes", "AUTOINSTALL=''  # no"])
    def test_a_configuration_that_is_not_faulty_is_left_alone(self, tree: Path, line: str) -> None:
        conf = tree / "usr/src/ejectable-live-0.1.0/dkms.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text(f'PACKAGE_NAME="ejectable-live"\n{line}\n')
        assert not situation(tree).facts.live_repair.faulty_dkms

    def test_a_failing_build_of_dkms_takes_everything_back(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        work_on(tree, monkeypatch, "dkms")
        with pytest.raises(Missing, match="Bad return status") as caught:
            apply(tree, persist=True)
        assert "make.log" in str(caught.value.hint)
        assert as_before(tree)
        assert not [line for line in said(tree.parent) if line.startswith("insmod")]

    def test_without_it_the_units_are_gone_with_the_boot(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        work_on(tree, monkeypatch)
        apply(tree)
        assert (tree / "run/systemd/system/ejectable-live.service").exists()
        assert not (tree / "etc/systemd").exists()
        assert not [line for line in said(tree.parent) if "enable" in line]
        undo(tree)
        assert as_before(tree)


def test_a_name_that_no_header_can_hold_is_refused() -> None:
    for release, version in (('6.1"', "#1"), ("6.1", '#1 "; int x;'), ("6.1", "#1 \\"), ("6.1\n#define X", "#1")):
        with pytest.raises(Missing, match="no module can be built"):
            Target(release, version, "ab" * 20, None, any_hook()).header()
    with pytest.raises(Missing, match="no build-id"):
        Target("6.1", "#1", '"', None, any_hook()).header()


def test_the_module_is_shipped_in_the_wheel(tmp_path: Path) -> None:
    import sys
    import zipfile

    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", "from hatchling.builders.wheel import WheelBuilder"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("hatchling is not installed here; `make live-whole` installs from a wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=root, check=True
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for name in (
        "module/ejectable_live.c",
        "module/witness.h",
        "module/action.h",
        "module/Kbuild",
        "module/Makefile",
        "module/dkms.conf",
        "boot/guard.sh",
    ):
        assert f"ejectable/remedies/live/{name}" in names
