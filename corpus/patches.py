# SPDX-License-Identifier: GPL-2.0-or-later
"""The faulty callback, put back into drivers/virtio of kernels that never had it (6.1) or no longer do (6.12).

What the edits rebuild is the shape of v6.8 (fd27ef6b44be "virtio-pci: Introduce admin virtqueue"): a member
`is_avq` of struct virtio_pci_device that only the modern probe sets, and that vp_del_vqs() calls for every queue.
The edits find identifiers, not lines, and insist that each one applied; no kernel text is kept here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ejectable.errors import OurFault

__all__ = [
    "CALL",
    "COMMON_C",
    "COMMON_H",
    "LEGACY_C",
    "MODERN_C",
    "NEVER",
    "VARIANTS",
    "Edit",
    "Family",
    "Variant",
    "apply",
]

COMMON_H, COMMON_C = "virtio_pci_common.h", "virtio_pci_common.c"
MODERN_C, LEGACY_C = "virtio_pci_modern.c", "virtio_pci_legacy.c"

CALL = "vp_dev->is_avq(vdev, vq->index)"
MEMBER = "bool (*is_avq)(struct virtio_device *vdev, unsigned int index);"
# VIRTIO_F_ADMIN_VQ is feature bit 41 (virtio 1.3, section 6); 6.1's headers have no name for it.
PREDICATE = """
static bool vp_is_avq(struct virtio_device *vdev, unsigned int index)
{
	return virtio_has_feature(vdev, 41) && to_vp_device(vdev)->admin_vq.vq_index == index;
}
"""
SKIPS = """
static {how} bool vp_skips(struct virtio_pci_device *vp_dev, struct virtqueue *vq)
{{
	return {test};
}}
"""
NEVER = """
static bool vp_never_avq(struct virtio_device *vdev, unsigned int index)
{
	return false;
}
"""


Family = Literal["6.1", "6.12"]
# In front of or behind the one match of a pattern in a file: ("after", LEGACY_C, pattern, text).
Edit = tuple[Literal["before", "after"], str, str, str]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write it. `skip` is what vp_del_vqs() does first for each queue."""

    expected: Literal["affected", "fixed", "not_affected"]
    what: str
    skip: str | None
    place: Literal["last", "first", "middle"] = "last"  # of the member in the struct
    helper: str | None = None  # a function in front of vp_del_vqs()
    legacy_sets: bool = False  # virtio_pci_legacy_probe() sets the member too
    probe_sets: bool = False  # virtio_pci_probe() sets it before it asks either driver
    member: str = MEMBER
    modern_sets: str = "vp_dev->is_avq = vp_is_avq;"
    edits: tuple[Edit, ...] = ()
    families: tuple[Family, ...] = ("6.1", "6.12")


VARIANTS: dict[str, Variant] = {
    "stock": Variant(expected="not_affected", what="the source as Debian ships it", skip=None),
    "affected": Variant(expected="affected", what="as in v6.8", skip=f"if ({CALL})\n\t\t\tcontinue;"),
    "fixed": Variant(
        expected="fixed",
        what="as c8fae27d141a does it: the pointer is tested first",
        skip=f"if (vp_dev->is_avq && {CALL})\n\t\t\tcontinue;",
    ),
    "fixed-legacy-probe": Variant(
        expected="fixed",
        what="the legacy probe sets the pointer; the call is not guarded",
        skip=f"if ({CALL})\n\t\t\tcontinue;",
        legacy_sets=True,
    ),
    "affected-first": Variant(
        expected="affected", what="the member comes early", skip=f"if ({CALL})\n\t\t\tcontinue;", place="first"
    ),
    "fixed-middle": Variant(
        expected="fixed",
        what="the member stands amid the others, the guard is written the other way round",
        skip=f"if (NULL != vp_dev->is_avq) {{\n\t\t\tif ({CALL})\n\t\t\t\tcontinue;\n\t\t}}",
        place="middle",
    ),
    "fixed-helper": Variant(
        expected="fixed",
        what="guard and call in an inlined helper",
        skip="if (vp_skips(vp_dev, vq))\n\t\t\tcontinue;",
        helper=SKIPS.format(how="inline", test="vp_dev->is_avq && vp_dev->is_avq(&vp_dev->vdev, vq->index)"),
    ),
    "affected-helper": Variant(
        expected="affected",
        what="the call in a function of its own that is not inlined",
        skip="if (vp_skips(vp_dev, vq))\n\t\t\tcontinue;",
        helper=SKIPS.format(how="noinline", test="vp_dev->is_avq(&vp_dev->vdev, vq->index)"),
    ),
    "fixed-helper-outline": Variant(
        expected="fixed",
        what="guard and call in a function of its own that is not inlined",
        skip="if (vp_skips(vp_dev, vq))\n\t\t\tcontinue;",
        helper=SKIPS.format(how="noinline", test="vp_dev->is_avq && vp_dev->is_avq(&vp_dev->vdev, vq->index)"),
    ),
    "fixed-is-legacy": Variant(
        expected="fixed",
        what="guarded by is_legacy instead of the pointer",
        skip=f"if (!vp_dev->is_legacy && {CALL})\n\t\t\tcontinue;",
    ),
    "fixed-feature": Variant(
        expected="fixed",
        what="guarded by the feature bit instead of the pointer",
        skip=f"if (virtio_has_feature(vdev, 41) && {CALL})\n\t\t\tcontinue;",
    ),
    "affected-late": Variant(
        expected="affected",
        what="the pointer is tested, but only after the call",
        skip=f"if ({CALL} && vp_dev->is_avq)\n\t\t\tcontinue;",
    ),
    "fixed-common-probe": Variant(
        expected="fixed",
        what="virtio_pci_probe() sets a default for every device; the call is not guarded",
        skip=f"if ({CALL})\n\t\t\tcontinue;",
        probe_sets=True,
    ),
    "affected-other-guard": Variant(
        expected="affected",
        what="another pointer is tested",
        skip=f"if (vp_dev->del_vq && {CALL})\n\t\t\tcontinue;",
    ),
    "affected-inverted": Variant(
        expected="affected",
        what="the pointer is tested the wrong way round",
        skip=f"if (!vp_dev->is_avq && {CALL})\n\t\t\tcontinue;",
    ),
    "affected-ternary": Variant(
        expected="affected",
        what="the call chooses between two records instead of skipping the queue",
        skip=f"info = {CALL} ? vp_dev->admin_vq.info : vp_dev->vqs[vq->index];",
        families=("6.12",),
    ),
}


class _Edits:
    """The files of one drivers/virtio, and edits that insist on having an effect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sub(self, file: str, pattern: str, replacement: str, *, count: int = 1) -> None:
        """Replace exactly `count` matches of `pattern`, `^` and `$` being a line's."""
        path = self.folder / file
        text, done = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        if done != count:
            raise OurFault(f"The edit of {file} at /{pattern}/ matched {done} times instead of {count}.")
        path.write_text(text)

    def before(self, file: str, pattern: str, text: str) -> None:
        """Insert `text` in front of the one match."""
        self.sub(file, rf"(?={pattern})", text.lstrip("\n") + "\n")

    def after(self, file: str, pattern: str, text: str) -> None:
        """Insert `text` behind the one match."""
        self.sub(file, rf"(?P<here>{pattern})", r"\g<here>" + text)


def apply(folder: Path, family: str, name: str, variants: Mapping[str, Variant] = VARIANTS) -> Variant:
    """Edit a copy of drivers/virtio (`folder`) of linux-source-`family` into the variant called `name`."""
    variant = variants[name]
    if family not in variant.families:
        raise OurFault(f"The variant {name} is not for linux-source-{family}.")
    if variant.skip is None:
        return variant
    edits = _Edits(folder)
    if family == "6.12":
        _undo_redesign(edits)
    else:
        _introduce_admin_queue(edits)
    places = {
        "last": r"u16 \(\*config_vector\)\(struct virtio_pci_device \*vp_dev, u16 vector\);",
        "middle": r"bool per_vq_vectors;",
        "first": r"struct pci_dev \*pci_dev;",
    }
    # Only the first `pci_dev` of the header is a member of the struct; the others are unique.
    edits.sub(COMMON_H, rf"(?P<here>^\t{places[variant.place]})$", rf"\g<here>\n\t{variant.member}")
    loop = r"list_for_each_entry_safe\(vq, n, &vdev->vqs, list\) \{"
    skip = variant.skip if "info = " in variant.skip or family == "6.1" else variant.skip + _INFO
    edits.after(COMMON_C, loop, f"\n\t\t{skip}\n")
    if variant.helper:
        edits.before(COMMON_C, r"^void vp_del_vqs\(", variant.helper)
    edits.before(MODERN_C, r"^static u64 vp_get_features\(", PREDICATE)
    edits.after(MODERN_C, r"\n\tvp_dev->del_vq = del_vq;", f"\n\t{variant.modern_sets}")
    if variant.probe_sets:
        edits.before(COMMON_C, r"^static int virtio_pci_probe\(", NEVER)
        edits.after(COMMON_C, r"\n\tvp_dev->pci_dev = pci_dev;", "\n\tvp_dev->is_avq = vp_never_avq;")
    if variant.legacy_sets:
        edits.before(LEGACY_C, r"^int virtio_pci_legacy_probe\(", NEVER)
        edits.after(LEGACY_C, r"\n\tvp_dev->del_vq = del_vq;", "\n\tvp_dev->is_avq = vp_never_avq;")
    for where, file, pattern, text in variant.edits:
        (edits.before if where == "before" else edits.after)(file, pattern, text)
    return variant


_INFO = "\n\t\tinfo = vp_dev->vqs[vq->index];"


def _introduce_admin_queue(edits: _Edits) -> None:
    """6.1 knows no admin queue: give the device a record of it, as v6.8 does."""
    record = (
        "struct virtio_pci_admin_vq {\n\tstruct virtio_pci_vq_info info;\n\tspinlock_t lock;\n\tu16 vq_index;\n};\n"
    )
    edits.before(COMMON_H, r"^/\* Our device structure \*/", record)
    edits.after(COMMON_H, r"^\tstruct virtio_pci_vq_info \*\*vqs;", "\n\n\tstruct virtio_pci_admin_vq admin_vq;")


def _undo_redesign(edits: _Edits) -> None:
    """6.12 asks vp_is_avq() and has `avq_index` (v6.11): the predicate goes back to the modern driver, the member goes.

    The record of the admin queue, which the redesign also changed, stays: it is no part of the defect.
    """
    edits.sub(COMMON_C, r"^bool vp_is_avq\([^{]*\{[^}]*\}\n", "")
    edits.sub(COMMON_H, r"^bool vp_is_avq\(.*;\n", "")
    edits.sub(COMMON_C, r"info = vp_is_avq\([^;]*;", "")
    edits.sub(COMMON_H, r"^\tint \(\*avq_index\)\(.*;\n", "")
    edits.after(
        COMMON_H, r"^void vp_del_vqs\(.*;", "\nint vp_avq_index(struct virtio_device *vdev, u16 *index, u16 *num);"
    )
    edits.sub(COMMON_C, r"if \(vp_dev->avq_index\)", "if (!vp_dev->is_legacy)", count=2)
    edits.sub(COMMON_C, r"vp_dev->avq_index\(", "vp_avq_index(", count=2)
    edits.sub(MODERN_C, r"^static int vp_avq_index\(", "int vp_avq_index(")
    edits.sub(MODERN_C, r"^\tvp_dev->avq_index = vp_avq_index;\n", "")
