# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry, the facts, the rules of the verdict, and whom the defect hits."""

import re
from typing import Any

import msgspec
import pytest

from ejectable.advisories import registry
from ejectable.advisories.cve_2024_42134.declarations import config
from ejectable.advisories.exposure import expose
from ejectable.advisories.facts import Commit, FixedPackage, LookAlike, Release
from ejectable.advisories.verdict import verdict
from ejectable.advisories.versions import changelog, version
from ejectable.kernel.config import parse_config
from ejectable.model import Device, Doubt, DoubtKind, Evidence, EvidenceKind, Finding, Justification, Status

ADVISORY = registry()["CVE-2024-42134"]
FACTS = ADVISORY.facts


def test_an_advisory_is_found_by_its_folder_and_its_facts_agree() -> None:
    assert list(registry()) == [advisory.id for advisory in registry().values()]
    for advisory in registry().values():
        assert advisory.facts.id == advisory.id
        assert advisory.title


def test_every_fact_names_its_source() -> None:
    facts: list[Commit | Release | FixedPackage | LookAlike] = [*FACTS.commits, *FACTS.releases]
    facts += [*FACTS.packages, *FACTS.look_alikes]
    assert [fact for fact in facts if not fact.source] == []
    assert all(reference.url.startswith("https://") for reference in FACTS.references)
    assert all(re.fullmatch(r"[0-9a-f]{40}", commit.id) for commit in FACTS.commits if commit.id)
    assert {package.status for package in FACTS.packages} <= {"fixed", "not_affected", "unknown"}
    assert all(bool(package.fixed) == (package.status == "fixed") for package in FACTS.packages)


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("6.7.12", Status.NOT_AFFECTED),
        ("6.1.0-50-cloud-amd64", Status.NOT_AFFECTED),
        ("6.8.0", Status.AFFECTED),
        ("6.8.12", Status.AFFECTED),
        ("6.9.0", Status.AFFECTED),
        ("6.9.8", Status.AFFECTED),
        ("6.9.9", Status.FIXED),
        ("6.9.12-arch1-1", Status.FIXED),
        ("6.10.0", Status.FIXED),
        ("6.12.117+deb12-amd64", Status.FIXED),
    ],
)
def test_a_version_is_placed_in_upstreams_ranges(release: str | None, says: Status) -> None:
    found = version(release, None, FACTS)
    assert found is not None
    assert (found.kind, found.says) == (EvidenceKind.VERSION, says)


@pytest.mark.parametrize(
    ("release", "says"), [("6.1.79", Status.NOT_AFFECTED), ("6.1.80", Status.AFFECTED), ("6.1.123", Status.FIXED)]
)
def test_a_stable_branch_has_the_defect_only_from_where_it_was_brought_in(release: str, says: Status) -> None:
    branch = Release(introduced="6.1.80", source="made up", fixed="6.1.123", branch="6.1")
    found = version(release, None, msgspec.structs.replace(FACTS, releases=(branch, *FACTS.releases)))
    assert found is not None
    assert found.says is says


@pytest.mark.parametrize(
    "release", ["5.14.0-503.el9.x86_64", "6.4.0-150600.23-default", None, "unknown", "6.6.30-5.al8"]
)
def test_a_version_of_a_vendor_who_backports_says_nothing(release: str | None) -> None:
    assert version(release, None, FACTS) is None


@pytest.mark.parametrize(
    ("banner", "says"),
    [
        ("Linux version 6.8.0-31-generic (x) #31-Ubuntu SMP (Ubuntu 6.8.0-31.31-generic 6.8.1)", Status.AFFECTED),
        ("Linux version 6.8.0-40-generic (x) #40-Ubuntu SMP (Ubuntu 6.8.0-40.40-generic 6.8.12)", Status.FIXED),
        ("Linux version 6.8.0-1012-aws (x) (Ubuntu 6.8.0-1012.13-aws 6.8.12)", Status.AFFECTED),
        ("Linux version 6.8.0-1013-aws (x) (Ubuntu 6.8.0-1013.14-aws 6.8.12)", Status.FIXED),
        ("Linux version 6.8.0-40-generic (x) (Ubuntu 6.8.0-40.40~22.04.3-generic 6.8.12)", Status.FIXED),
        ("Linux version 6.8.0-39-generic (x) (Ubuntu 6.8.0-39.39~22.04.1-generic 6.8.12)", Status.AFFECTED),
    ],
)
def test_ubuntus_own_table_decides_about_ubuntus_versions(banner: str, says: Status) -> None:
    found = version(banner.split()[2], banner, FACTS)
    assert found is not None
    assert (found.says, "Ubuntu" in found.detail) == (says, True)


def test_a_changelog_that_names_the_fix_says_so_and_one_that_names_only_the_feature_does_not() -> None:
    fix = changelog("  * virtio-pci: Check if is_avq is NULL\n", FACTS)
    assert fix is not None
    assert fix.says is Status.FIXED
    feature = changelog("  * virtio-pci: Introduce admin virtqueue\n", FACTS)
    assert feature is not None
    assert feature.says is Status.UNKNOWN
    assert changelog("  * something else\n", FACTS) is None
    assert changelog(None, FACTS) is None


def evidence(kind: EvidenceKind, says: Status) -> Evidence:
    return Evidence(kind, says, f"{kind} says {says}")


def test_executed_code_outranks_everything_and_a_disagreement_is_shown() -> None:
    found = verdict(
        "X",
        [
            evidence(EvidenceKind.VERSION, Status.FIXED),
            evidence(EvidenceKind.DISASSEMBLY, Status.FIXED),
            evidence(EvidenceKind.EXECUTED, Status.AFFECTED),
        ],
        nothing="nothing",
    )
    assert (found.status, found.conflict, found.reason) == (Status.AFFECTED, True, "executed says affected")
    assert [item.kind for item in found.evidence] == ["executed", "disassembly", "version"]


@pytest.mark.parametrize("kind", [EvidenceKind.VERSION, EvidenceKind.CHANGELOG])
@pytest.mark.parametrize("says", [Status.FIXED, Status.NOT_AFFECTED, Status.AFFECTED])
def test_what_is_only_written_decides_nothing(kind: EvidenceKind, says: Status) -> None:
    found = verdict("X", [evidence(kind, says)], nothing="nothing was run")
    assert (found.status, found.reason, found.justification) == (Status.UNKNOWN, "nothing was run", None)


def test_unknown_evidence_leaves_the_decision_to_the_next_kind() -> None:
    found = verdict(
        "X",
        [evidence(EvidenceKind.EXECUTED, Status.UNKNOWN), evidence(EvidenceKind.TYPES, Status.NOT_AFFECTED)],
        nothing="nothing",
    )
    assert (found.status, found.justification) == (Status.NOT_AFFECTED, "vulnerable_code_not_present")
    assert not found.conflict


@pytest.mark.parametrize("says", [Status.FIXED, Status.NOT_AFFECTED])
def test_a_configuration_alone_makes_no_safe_word(says: Status) -> None:
    found = verdict("X", [evidence(EvidenceKind.CONFIG, says), evidence(EvidenceKind.VERSION, says)], nothing="-")
    assert found.status is Status.UNKNOWN
    assert [doubt.kind for doubt in found.doubts] == ["weak"]
    assert "config says" in found.reason


@pytest.mark.parametrize("says", [Status.FIXED, Status.NOT_AFFECTED])
def test_with_a_doubt_about_the_code_nothing_speaks_for_the_kernel(says: Status) -> None:
    doubt = Doubt(DoubtKind.BOUND, "f", "the run came to its bound")
    items = [evidence(EvidenceKind.EXECUTED, says), evidence(EvidenceKind.TYPES, says)]
    found = verdict("X", items, nothing="-", doubts=[doubt])
    assert (found.status, found.reason, found.doubts) == (Status.UNKNOWN, doubt.detail, (doubt,))
    worse = verdict("X", [*items, evidence(EvidenceKind.SYMBOLS, Status.AFFECTED)], nothing="-", doubts=[doubt])
    assert worse.status is Status.AFFECTED


@pytest.mark.parametrize("kind", [EvidenceKind.VERSION, EvidenceKind.CHANGELOG])
def test_what_is_written_about_a_backport_is_no_conflict(kind: EvidenceKind) -> None:
    found = verdict("X", [evidence(EvidenceKind.EXECUTED, Status.AFFECTED), evidence(kind, Status.FIXED)], nothing="-")
    assert not found.conflict


def test_the_justification_is_a_field_of_the_evidence_whatever_its_sentence_says() -> None:
    reached = msgspec.structs.replace(
        evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED), justification=Justification.NOT_REACHED
    )
    plain = Evidence(EvidenceKind.EXECUTED, Status.NOT_AFFECTED, "this kernel cannot drive a legacy device")
    assert verdict("X", [plain], nothing="-").justification == "vulnerable_code_not_present"
    assert verdict("X", [plain, reached], nothing="-").justification == "vulnerable_code_not_in_execute_path"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# CONFIG_VIRTIO_PCI is not set\n", Status.NOT_AFFECTED),
        ("# CONFIG_VIRTIO_MENU is not set\n", Status.NOT_AFFECTED),
        ("# CONFIG_PCI is not set\n", Status.NOT_AFFECTED),
        ("CONFIG_VIRTIO_PCI=m\n# CONFIG_VIRTIO_PCI_LEGACY is not set\n", Status.NOT_AFFECTED),
        ("CONFIG_PCI=y\nCONFIG_VIRTIO_MENU=y\n", Status.UNKNOWN),  # it breaks off there
        ("CONFIG_VIRTIO_MENU=y\nCONFIG_VIRTIO_PCI=m\n", Status.UNKNOWN),
        ("CONFIG_64BIT=y\n", Status.UNKNOWN),
        ("CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_PCI_LEGACY=y\n", Status.UNKNOWN),
    ],
)
def test_an_option_that_a_configuration_does_not_name_is_not_off(text: str, says: Status) -> None:
    found = config(parse_config(text.encode()))
    assert found is not None
    assert found.says is says, found.detail


def device(**changes: str | None) -> Device:
    values: dict[str, Any] = {
        "name": "virtio0", "transport": "pci", "address": "0000:00:05.0", "kind": "disk", "driver": "virtio_blk",
        "nodes": ("vda",), "mode": "legacy", "hotpluggable": True, "unplug": "unknown", "reason": "",
    }  # fmt: skip
    return Device(**{**values, **changes})


def exposed(status: Status, **changes: str | None) -> str:
    finding = Finding("CVE-2024-42134", status, None, "", (), False)
    return shown(finding, device(**changes)).unplug


def shown(finding: Finding, one: Device) -> Device:
    said = ADVISORY.exposures(one, finding)
    assert said is not None
    return expose(one, [said])


@pytest.mark.parametrize(
    ("status", "changes", "unplug"),
    [
        (Status.AFFECTED, {}, "would_oops"),
        (Status.AFFECTED, {"mode": "modern"}, "safe"),
        (Status.AFFECTED, {"mode": "unknown"}, "unknown"),
        (Status.AFFECTED, {"transport": "mmio"}, "safe"),
        (Status.AFFECTED, {"transport": "unknown"}, "unknown"),
        (Status.AFFECTED, {"driver": None}, "unknown"),
        (Status.UNKNOWN, {}, "unknown"),
        (Status.UNKNOWN, {"mode": "modern"}, "safe"),
        (Status.UNKNOWN, {"mode": "unknown"}, "unknown"),
        (Status.FIXED, {}, "safe"),
        (Status.NOT_AFFECTED, {}, "safe"),
        (Status.MITIGATED, {}, "safe"),
    ],
)
def test_who_is_hit(status: Status, changes: dict[str, str | None], unplug: str) -> None:
    assert exposed(status, **changes) == unplug


def test_a_device_comes_back_with_nothing_else_changed() -> None:
    finding = Finding("CVE-2024-42134", Status.AFFECTED, None, "", (), False)
    before = device()
    after = shown(finding, before)
    assert after.reason
    assert {f: getattr(after, f) for f in ("name", "address", "nodes", "mode")} == {
        f: getattr(before, f) for f in ("name", "address", "nodes", "mode")
    }
