# SPDX-License-Identifier: GPL-2.0-or-later
"""The edits that put the callback back: they do what they say, or say that they cannot."""

from pathlib import Path

import pytest

from corpus.patches import VARIANTS, apply
from ejectable.errors import OurFault

# A stand-in with the identifiers that the edits look for, in the order in which the kernel has them.
HEADER = """
/* Our device structure */
struct virtio_pci_device {
	struct virtio_device vdev;
	struct pci_dev *pci_dev;
	struct virtio_pci_vq_info **vqs;
	bool per_vq_vectors;
	u16 (*config_vector)(struct virtio_pci_device *vp_dev, u16 vector);
};
"""
COMMON = """
void vp_del_vqs(struct virtio_device *vdev)
{
	list_for_each_entry_safe(vq, n, &vdev->vqs, list) {
		vp_del_vq(vq);
	}
}
static int virtio_pci_probe(struct pci_dev *pci_dev, const struct pci_device_id *id)
{
	vp_dev->pci_dev = pci_dev;
}
"""
MODERN = """
static u64 vp_get_features(struct virtio_device *vdev)
{
}
void modern(void)
{
	vp_dev->del_vq = del_vq;
}
"""
LEGACY = """
int virtio_pci_legacy_probe(struct virtio_pci_device *vp_dev)
{
	vp_dev->del_vq = del_vq;
}
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    for name, text in (("common.h", HEADER), ("common.c", COMMON), ("modern.c", MODERN), ("legacy.c", LEGACY)):
        (tmp_path / f"virtio_pci_{name}").write_text(text)
    return tmp_path


def test_only_the_modern_probe_sets_the_callback_of_the_affected_variant(driver: Path) -> None:
    apply(driver, "6.1", "affected")
    assert "is_avq = " in (driver / "virtio_pci_modern.c").read_text()
    assert "is_avq" not in (driver / "virtio_pci_legacy.c").read_text()
    assert "if (vp_dev->is_avq(vdev, vq->index))" in (driver / "virtio_pci_common.c").read_text()


def test_the_member_stands_where_the_variant_says(driver: Path) -> None:
    apply(driver, "6.1", "affected-first")
    text = (driver / "virtio_pci_common.h").read_text()
    assert text.index("*pci_dev;") < text.index("is_avq") < text.index("**vqs;")


def test_every_variant_applies_and_the_stock_one_changes_nothing(driver: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_text() for file in driver.iterdir()}
    for name, variant in VARIANTS.items():
        if "6.1" not in variant.families:
            continue
        apply(driver, "6.1", name)
        changed = any(file.read_text() != before[file.name] for file in driver.iterdir())
        assert changed == (variant.expected != "not_affected"), name
        for file, text in before.items():
            (driver / file).write_text(text)


def test_an_edit_that_finds_nothing_to_edit_is_an_error(driver: Path) -> None:
    (driver / "virtio_pci_common.c").write_text("int nothing;\n")
    with pytest.raises(OurFault, match=r"virtio_pci_common\.c"):
        apply(driver, "6.1", "affected")


def test_a_variant_is_refused_for_a_kernel_that_it_is_not_for(driver: Path) -> None:
    with pytest.raises(OurFault, match="affected-ternary"):
        apply(driver, "6.1", "affected-ternary")
