# SPDX-License-Identifier: GPL-2.0-or-later
"""No good word about a machine rests on a file, a name or a gap that proves nothing."""

from functools import partial
from pathlib import Path

import msgspec
import pytest

from ejectable import host
from ejectable.advisories import choose
from ejectable.assess import memory
from ejectable.assess.downgrade import downgrade_in_transition, downgrade_live_patched, downgrade_refuted
from ejectable.assess.machine import assess
from ejectable.assess.running_kernel import RunningKernel
from ejectable.host.devices import Found, read_devices
from ejectable.host.slots import Slots
from ejectable.model import Device, Evidence, EvidenceKind, Finding, KernelReport, Status
from tests.host.trees import LEGACY_DISK, RELEASE, Machine

ADVISORY = "CVE-2024-42134"
DISK = Device(
    name="virtio1",
    transport="pci",
    address="0000:00:06.0",
    kind="disk",
    driver="virtio_blk",
    nodes=("vdb",),
    mode="legacy",
    hotpluggable=True,
    unplug="unknown",
    reason="",
)


def _report(status: Status, justification: str | None = None, detail: str = "vp_del_vqs() tests it") -> KernelReport:
    finding = Finding(
        ADVISORY,
        status,
        justification,
        "It was read.",
        (Evidence(EvidenceKind.DISASSEMBLY, status, detail, functions=("vp_del_vqs",)),),
        conflict=False,
    )
    return KernelReport(
        path="/boot/vmlinuz",
        member=None,
        release=RELEASE,
        banner=None,
        arch="x86_64",
        build_id=None,
        format="bzImage",
        virtio_pci="builtin",
        findings=(finding,),
    )


def _status(report: KernelReport) -> Status:
    return report.findings[0].status


def test_a_legacy_device_refutes_a_kernel_that_could_not_drive_it() -> None:
    claimed = _report(Status.NOT_AFFECTED, "vulnerable_code_not_in_execute_path")
    assert _status(downgrade_refuted(claimed, (), choose(()))) is Status.NOT_AFFECTED
    assert (
        _status(downgrade_refuted(claimed, (msgspec.structs.replace(DISK, mode="modern"),), choose(())))
        is Status.NOT_AFFECTED
    )
    assert (
        _status(downgrade_refuted(claimed, (msgspec.structs.replace(DISK, transport="mmio"),), choose(())))
        is Status.NOT_AFFECTED
    )
    refuted = downgrade_refuted(claimed, (DISK,), choose(()))
    assert _status(refuted) is Status.UNKNOWN
    assert refuted.findings[0].justification is None
    assert "virtio1 is driven as legacy" in refuted.findings[0].reason
    # A kernel that never had the code is another claim: legacy devices are at home there.
    never = _report(Status.NOT_AFFECTED, "vulnerable_code_not_present")
    assert downgrade_refuted(never, (DISK,), choose(())) == never


def _patched(function: str, *, in_transition: bool = False) -> tuple[host.PatchedFunction, ...]:
    return (host.PatchedFunction("livepatch_1", "virtio_pci", function, in_transition),)


@pytest.mark.parametrize("said", [Status.AFFECTED, Status.FIXED])
def test_a_live_patch_that_memory_does_not_explain_leaves_no_word_standing(said: Status) -> None:
    for name in ("vp_del_vqs", "vp_del_vqs.isra.0"):
        assert _status(downgrade_live_patched(_report(said), _patched(name), None)) is Status.UNKNOWN
    patched = _patched("vp_del_vqs")
    assert _status(downgrade_live_patched(_report(said), patched, _report(Status.UNKNOWN))) is Status.UNKNOWN
    assert _status(downgrade_live_patched(_report(said), patched, _report(Status.FIXED))) is said, (
        "memory decides later"
    )
    # Functions are compared, not words in a sentence.
    assert _status(downgrade_live_patched(_report(said), _patched("vp_del"), None)) is said
    assert _status(downgrade_live_patched(_report(said), _patched("do_exit"), None)) is said


def test_a_live_patch_in_transition_repairs_nothing_yet() -> None:
    found = memory.merged(_report(Status.AFFECTED), _report(Status.FIXED))
    assert found is not None
    assert _status(downgrade_in_transition(found, _patched("vp_del_vqs"))) is Status.MITIGATED
    going_in = downgrade_in_transition(found, _patched("vp_del_vqs", in_transition=True))
    assert _status(going_in) is Status.UNKNOWN
    assert [doubt.kind for doubt in going_in.findings[0].doubts] == ["changing"]
    bad = downgrade_in_transition(_report(Status.AFFECTED), _patched("vp_del_vqs", in_transition=True))
    assert _status(bad) is Status.AFFECTED


def test_a_tree_tells_which_functions_are_patched_and_whether_that_is_done(tmp_path: Path) -> None:
    tree = Machine(image=False, running_build_id="ab").build(tmp_path)
    for number, (enabled, transition) in enumerate((("1", "0"), ("1", "1"), ("0", "1"), ("0", "0"))):
        patch = tree / f"sys/kernel/livepatch/p{number}"
        (patch / "virtio_pci/vp_del_vqs,1").mkdir(parents=True)
        (patch / "enabled").write_text(f"{enabled}\n")
        (patch / "transition").write_text(f"{transition}\n")
    running = _facts(tree).running
    assert running is not None
    assert [(one.patch, one.function, one.in_transition) for one in running.patched] == [
        ("p0", "vp_del_vqs", False),
        ("p1", "vp_del_vqs", True),
        ("p2", "vp_del_vqs", True),  # going out
    ]


def _of_kind(status: Status, kind: EvidenceKind) -> KernelReport:
    report = _report(status)
    evidence = (Evidence(kind, status, "It was seen.", functions=("vp_del_vqs",)),)
    finding = msgspec.structs.replace(report.findings[0], evidence=evidence)
    return msgspec.structs.replace(report, findings=(finding,))


@pytest.mark.parametrize("said", [Status.FIXED, Status.NOT_AFFECTED])
def test_what_was_executed_outranks_weaker_evidence_wherever_it_was_read(said: Status) -> None:
    executed, symbols = EvidenceKind.EXECUTED, EvidenceKind.SYMBOLS

    def word(disk: EvidenceKind, running: EvidenceKind) -> Finding:
        found = memory.merged(_of_kind(Status.AFFECTED, disk), _of_kind(said, running))
        assert found is not None
        return found.findings[0]

    assert word(executed, executed).status is Status.MITIGATED
    assert word(symbols, executed).status is Status.MITIGATED
    assert (word(executed, symbols).status, word(executed, symbols).conflict) == (Status.AFFECTED, True)
    both = memory.merged(_of_kind(said, executed), _of_kind(Status.AFFECTED, symbols))
    assert both is not None
    assert both.findings[0].status is Status.AFFECTED, "a bad word needs no strength"


def _facts(tree: Path) -> host.Facts:
    return host.read(host.Root(tree))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (Status.FIXED, Status.FIXED),
        (Status.AFFECTED, Status.UNKNOWN),
        (Status.UNKNOWN, Status.UNKNOWN),
    ],
)
def test_devices_that_cannot_be_seen_are_not_taken_for_none(word: Status, expected: Status, tmp_path: Path) -> None:
    tree = Machine(sysfs=False, image=False).build(tmp_path)
    facts = _facts(tree)
    assert facts.devices is None
    assert assess(facts, RunningKernel(_report(word)), {}).status is expected


def test_a_sandbox_that_only_looks_like_sysfs_is_no_machine_without_virtio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    root = host.Root(tmp_path)
    monkeypatch.setattr(root, "live", True)
    assert read_devices(root, Slots(root)).doubts
    (tmp_path / "sys/bus/platform").mkdir()
    assert read_devices(root, Slots(root)) == Found((), ())


def test_what_virtio_pci_drives_is_listed_even_where_its_virtio_device_is_hidden(tmp_path: Path) -> None:
    tree = Machine(devices=(LEGACY_DISK,), image=False, running_build_id="ab").build(tmp_path)
    (tree / "sys/bus/virtio/devices/virtio0").unlink()
    (device,) = _facts(tree).devices or ()
    assert (device.name, device.mode, device.nodes) == ("virtio0", "legacy", ("vdb",))
    here = tree / "sys/devices/pci0000:00/0000:00:06.0"
    (here / "virtio0").rename(tmp_path / "gone")
    (device,) = _facts(tree).devices or ()
    assert (device.name, device.mode, device.hotpluggable) == ("0000:00:06.0", "unknown", True)
    (here / "driver").unlink()
    (here / "driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    assert _facts(tree).devices == (), "a function that was given to a guest runs no vp_del_vqs() here"


def test_the_module_that_modprobe_would_load_comes_first(tmp_path: Path) -> None:
    base = tmp_path / f"lib/modules/{RELEASE}"
    for name in ("kernel/drivers/virtio/virtio_pci.ko", "vendor/virtio-pci.ko.xz", "updates/dkms/virtio_pci.ko"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    there = f"/lib/modules/{RELEASE}"
    found = partial(host.module_files, host.Root(tmp_path), RELEASE, "virtio_pci", "kernel/drivers/virtio")
    usual = (f"{there}/updates/dkms/virtio_pci.ko", f"{there}/kernel/drivers/virtio/virtio_pci.ko")
    assert found() == usual
    (base / "modules.dep").write_text("kernel/fs/ext4.ko: \nvendor/virtio-pci.ko.xz: kernel/drivers/virtio/virtio.ko\n")
    assert found() == (f"{there}/vendor/virtio-pci.ko.xz",)
    (base / "modules.dep").write_text("../../../../etc/virtio_pci.ko:\n")
    (tmp_path / "etc").mkdir()
    assert found() == usual
    assert host.module_files(host.Root(tmp_path), "../6.1", "virtio_pci") == ()


def test_without_a_boot_loader_the_linked_kernel_is_guessed_else_the_newest(tmp_path: Path) -> None:
    root = host.Root(tmp_path)
    assert host.boots_next(root).release is None
    (tmp_path / "boot").mkdir()
    for release in ("6.8.0-9-generic", "6.8.0-31-generic"):
        (tmp_path / f"boot/vmlinuz-{release}").touch()
        (tmp_path / f"lib/modules/{release}").mkdir(parents=True)
    (tmp_path / "lib/modules/6.11.0-removed").mkdir()
    assert host.boots_next(root).release == "6.8.0-31-generic"
    (tmp_path / "boot/vmlinuz").symlink_to("vmlinuz-6.8.0-9-generic")
    assert host.boots_next(root).release == "6.8.0-9-generic"
    assert not host.boots_next(root).certain


def test_a_fixed_machine_is_warned_of_an_affected_kernel_that_boots_next(tmp_path: Path) -> None:
    facts = _facts(Machine(devices=(), image=False, running_build_id="ab").build(tmp_path))
    waiting = msgspec.structs.replace(_report(Status.AFFECTED), path="/boot/vmlinuz-6.8.0-31-generic")
    for certain, word in ((True, "boots"), (False, "may boot")):
        answer = assess(facts, RunningKernel(_report(Status.FIXED), on_disk=waiting, certain=certain), {})
        assert answer.status is Status.FIXED
        assert answer.next_steps == (
            f"Before you reboot: /boot/vmlinuz-6.8.0-31-generic {word} next and has the defect; see `ejectable fix`.",
        )
