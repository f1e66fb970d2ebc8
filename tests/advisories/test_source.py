# SPDX-License-Identifier: GPL-2.0-or-later
"""The guard is found in C however it is written, and a comment or a test of something else is none."""

from pathlib import Path

import pytest

from ejectable.advisories.cve_2024_42134.source import source
from ejectable.model import Status

HEADER = "struct virtio_pci_device { struct virtio_device vdev; %s };"
MEMBER = "bool (*is_avq)(struct virtio_device *vdev, unsigned int index);"
CALL = "vp_dev->is_avq(vdev, vq->index)"
BODY = """
void vp_del_vqs(struct virtio_device *vdev)
{
	struct virtio_pci_device *vp_dev = to_vp_device(vdev);
	list_for_each_entry_safe(vq, n, &vdev->vqs, list) {
		%s
		vp_del_vq(vq);
	}
}
"""


def judged(tmp_path: Path, loop: str, *, member: str = MEMBER, legacy: str = "", before: str = "") -> Status:
    folder = tmp_path / "drivers/virtio"
    folder.mkdir(parents=True)
    (folder / "virtio_pci_common.h").write_text(HEADER % member)
    (folder / "virtio_pci_common.c").write_text(before + BODY % loop)
    if legacy:
        (folder / "virtio_pci_legacy.c").write_text(legacy)
    evidence = source(tmp_path)
    assert evidence is not None
    return evidence.says


@pytest.mark.parametrize(
    "loop",
    [
        f"if (vp_dev->is_avq && {CALL}) continue;",
        f"if (vp_dev->is_avq\n\t&&\n{CALL})\ncontinue;",
        f"if (vp_dev->is_avq != NULL && {CALL}) continue;",
        f"if (NULL != vp_dev->is_avq && {CALL}) continue;",
        f"if (vp_dev->is_avq) {{ if ({CALL}) continue; }}",
        f"if (!vp_dev->is_avq || !{CALL}) vp_clean(vq);",
        f"skip = vp_dev->is_avq ? {CALL} : false;",
        f"if (!vp_dev->is_legacy && {CALL}) continue;",
        f"if (virtio_has_feature(vdev, VIRTIO_F_ADMIN_VQ) && {CALL}) continue;",
        f"if (vp_dev->is_avq && /* not {CALL} */ {CALL}) continue;",
    ],
)
def test_a_guarded_call_is_fixed(tmp_path: Path, loop: str) -> None:
    assert judged(tmp_path, loop) is Status.FIXED


@pytest.mark.parametrize(
    "loop",
    [
        f"if ({CALL}) continue;",
        f"/* if (vp_dev->is_avq) */ if ({CALL}) continue; // vp_dev->is_avq &&",
        f"if ({CALL} && vp_dev->is_avq) continue;",
        f"if (vp_dev->msix_enabled && {CALL}) continue;",
        f"if (vp_dev->is_avq || {CALL}) continue;",
        f"if (a || vp_dev->is_avq) {{ if ({CALL}) continue; }}",
        f"if (!vp_dev->is_avq && {CALL}) continue;",
        f"if (vp_dev->is_legacy && {CALL}) continue;",
        f"if (vp_dev->is_avq) pr_debug(1); if ({CALL}) continue;",
        f"x = {CALL} ? 1 : 2;",
        f"if (!virtio_has_feature(vdev, VIRTIO_F_ADMIN_VQ) && {CALL}) continue;",
        f"if (virtio_has_feature(vdev, VIRTIO_F_RING_RESET) && {CALL}) continue;",
    ],
)
def test_an_open_call_is_affected(tmp_path: Path, loop: str) -> None:
    assert judged(tmp_path, loop) is Status.AFFECTED


def test_a_legacy_probe_that_sets_the_member_is_a_fix_and_one_that_clears_it_is_none(tmp_path: Path) -> None:
    probe = "int virtio_pci_legacy_probe(struct virtio_pci_device *vp_dev) { vp_dev->is_avq = %s; return 0; }"
    assert judged(tmp_path / "a", f"if ({CALL}) continue;", legacy=probe % "vp_never_avq") is Status.FIXED
    assert judged(tmp_path / "b", f"if ({CALL}) continue;", legacy=probe % "NULL") is Status.AFFECTED


def test_a_guard_in_a_helper_counts(tmp_path: Path) -> None:
    helper = (
        "static bool skips(struct virtio_pci_device *vp_dev) { if (!vp_dev->is_avq) return false; return "
        + CALL
        + "; }"
    )
    assert judged(tmp_path / "a", "if (skips(vp_dev)) continue;", before=helper) is Status.FIXED
    helper = "static bool skips(struct virtio_pci_device *vp_dev) { return " + CALL + "; }"
    assert judged(tmp_path / "b", "if (skips(vp_dev)) continue;", before=helper) is Status.AFFECTED


def test_without_the_member_there_is_nothing_to_fix(tmp_path: Path) -> None:
    assert judged(tmp_path, "", member="int other;") is Status.NOT_AFFECTED


def test_what_cannot_be_understood_is_unknown(tmp_path: Path) -> None:
    assert judged(tmp_path / "a", "") is Status.UNKNOWN
    assert judged(tmp_path / "b", f"if ({CALL}) continue;", member="int other;") is Status.UNKNOWN


def test_a_tree_without_the_driver_says_nothing(tmp_path: Path) -> None:
    assert source(tmp_path) is None
