# SPDX-License-Identifier: GPL-2.0-or-later
"""The screen of `check`: the worst in the first line, then devices by operations, then what to do; on one screen."""

import pytest

from ejectable.advisories.exposure import always, expose, exposures, meets, race
from ejectable.assess.checked import Checked
from ejectable.assess.summary import summary
from ejectable.model import (
    UNPLUG,
    Assessment,
    Device,
    Effect,
    Finding,
    Host,
    KernelReport,
    Operation,
    Outcome,
    Status,
)
from ejectable.report.check import as_text

__all__: list[str] = []

HOST = Host("web-1", "Ubuntu 24.10", "6.11.0-17-generic", "x86_64", "kvm", None, None)
DEFECTS = {
    "CVE-2026-64457": (always(Effect.OOPS, *UNPLUG, Operation.SUSPEND), "balloon", "pages are reported"),
    "virtio-net-cleantx-spin": (race(Effect.HANG, Operation.SHUTDOWN), "nic", "it has traffic"),
    "CVE-2025-68756": (race(Effect.HANG, *UNPLUG, Operation.DRIVER_UNBIND), "nvme", "two namespaces share tags"),
}  # fmt: skip
CLEAN = tuple(f"CVE-2020-{number}" for number in range(17))
KINDS = (("virtio0", "balloon", ()), ("virtio1", "nic", ("eth0",)), ("virtio2", "disk", ("vda",)),
         ("nvme0", "nvme", ("nvme0n1", "nvme0n2")), ("virtio3", "nic", ("eth1",)))  # fmt: skip


def finding(name: str, status: Status) -> Finding:
    return Finding(name, status, None, "its code was run", (), conflict=False)


def device(name: str, kind: str, nodes: tuple[str, ...], bad: tuple[str, ...]) -> Device:
    plain = Device(name, "pci", "0000:00:05.0", kind, "driver", nodes, "modern", True, "unknown", "")
    said = []
    for advisory in bad:
        operations, of_kind, why = DEFECTS[advisory]
        if of_kind == kind:
            reach = meets(why, "it ends badly")
            said.append((reach, exposures(reach, finding(advisory, Status.AFFECTED), operations)))
    return expose(plain, said)


def shown(kinds: tuple[tuple[str, str, tuple[str, ...]], ...], bad: tuple[str, ...], **options: bool) -> list[str]:
    devices = tuple(device(*one, bad) for one in kinds)
    status = Status.AFFECTED if any(one.exposures for one in devices) else Status.FIXED
    findings = tuple(finding(name, Status.AFFECTED if name in bad else Status.FIXED) for name in (*DEFECTS, *CLEAN))
    report = KernelReport("/boot/vmlinuz", None, HOST.kernel_release, None, "x86_64", None, "bzImage", None, findings,
                          source="/boot/vmlinuz-6.11.0-17-generic")  # fmt: skip
    outcome = Outcome(0, "hang" if bad else "none", 0, False)
    first = summary(status, devices, report, outcome, None, tuple(f.advisory for f in findings))  # type: ignore[arg-type]
    steps = ("Do not unplug virtio0 while this machine runs.", "Run `ejectable fix`.") if bad else ()
    assessment = Assessment(status, first, steps, HOST, report, devices, outcome)
    told = as_text([Checked("/", assessment)], colour=False, width=80, verbose=False, quiet=False, **options)
    assert len(told) < 24
    assert max(map(len, told)) <= 80
    return told


def test_nothing_wrong_is_said_in_the_first_line_with_how_much_was_asked() -> None:
    told = shown(KINDS[:2], ())
    assert told[0] == "FIXED  Kernel 6.11.0-17-generic has the fix (20 known defects)."
    assert "of 20 defects 20 fixed" in "\n".join(told)
    assert sum("safe" in line for line in told) == 2


def test_one_device_is_told_in_one_column() -> None:
    told = shown(KINDS[:1], ("CVE-2026-64457",))
    assert told[0].startswith("AFFECTED  Unplugging virtio0 (balloon) would Oops")
    assert next(line for line in told if line.startswith("  Device")).endswith("If unplugged")
    assert next(line for line in told if line.startswith("  virtio0 ")).endswith("would Oops")


def test_three_defects_on_five_devices_are_a_table_of_operations() -> None:
    told = shown(KINDS, tuple(DEFECTS))
    text = "\n".join(told)
    assert "(CVE-2026-64457). 2 more defects" in " ".join(text.split())
    header = next(line for line in told if line.startswith("  Device"))
    assert header.split()[2:] == ["Unplug", "Pull", "out", "Unbind", "Suspend", "Shutdown"]
    rows = {line.split()[0]: line for line in told[told.index(header) + 1 :] if line.startswith("  ")}
    assert rows["virtio0"].split()[-5:] == ["Oops", "Oops", "safe", "Oops", "safe"]
    assert rows["virtio1"].endswith("may hang")
    assert "may hang" in rows["nvme0"]
    assert len(rows["nvme0"].split()) == 10
    for name in DEFECTS:
        assert f"{name}: " in text
    assert "of 20 defects 3 affected: CVE-2026-64457" in text
    assert text.index("Pull out") < text.index("Next steps")


@pytest.mark.parametrize("count", [1, 40])
def test_many_devices_still_fit(count: int) -> None:
    many = tuple((f"virtio{n}", ("nic", "balloon", "disk")[n % 3], (f"eth{n}",)) for n in range(count))
    told = shown(many, tuple(DEFECTS)[:2] if count > 1 else ("virtio-net-cleantx-spin",))
    assert told[0].startswith("AFFECTED  ")
    assert ("more (--verbose)" in "\n".join(told)) is (count > 1)
