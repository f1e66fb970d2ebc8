# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that crash, and hide it: the defect where one look would miss it. None of them may be called safe.

Each is `affected`: some legacy device dies when it is unplugged. What a reader of the code cannot know, such as
which value a variable will have, may make the answer `unknown`; `fixed` and `not_affected` are wrong for all of them.
"""

from corpus.patches import CALL, COMMON_C, COMMON_H, LEGACY_C, NEVER, Variant

__all__ = ["TRAPS"]

OPEN = f"if ({CALL})\n\t\t\tcontinue;"
GUARDED = f"if (vp_dev->is_avq && {CALL})\n\t\t\tcontinue;"
DEL_VQS, PROBE = r"^void vp_del_vqs\(", r"^static int virtio_pci_probe\("
LEGACY_PROBE = r"^int virtio_pci_legacy_probe\("
LEGACY_SETS = r"\n\tvp_dev->del_vq = del_vq;"
ENABLES = r"\n\tvp_dev->pci_dev = pci_dev;"
RENAMED = "bool (*admin_queue_is)(struct virtio_device *vdev, unsigned int index);"
OPS = "\nstruct vp_ops { bool (*is_avq)(struct virtio_device *vdev, unsigned int index); };\n"


def _trap(what: str, skip: str, *edits: tuple[str, str, str, str], **more: object) -> Variant:
    return Variant(expected="affected", what=what, skip=skip, edits=edits, families=("6.1",), **more)  # type: ignore[arg-type]


def _legacy_sets(condition: str) -> tuple[tuple[str, str, str, str], ...]:
    return (
        ("before", LEGACY_C, LEGACY_PROBE, NEVER),
        ("after", LEGACY_C, LEGACY_SETS, f"\n\tif ({condition})\n\t\tvp_dev->is_avq = vp_never_avq;"),
    )


TRAPS: dict[str, Variant] = {
    "trap-second-call": _trap(
        "one call is guarded, another one is not, for devices with MSI-X",
        f"{GUARDED}\n\t\tif (vp_dev->msix_enabled && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-second-call-value": _trap(
        "one call is guarded, another one is not, for devices with three vectors",
        f"{GUARDED}\n\t\tif (vp_dev->msix_vectors == 3 && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-behind-the-loop": _trap(
        "the loop is guarded; behind it one more queue is asked about, without INTx",
        GUARDED,
        (
            "after",
            COMMON_C,
            r"\n\t\tvp_del_vq\(vq\);\n\t\}",
            "\n\tif (!vp_dev->intx_enabled)\n\t\tvp_dev->is_avq(vdev, 5);",
        ),
    ),
    "trap-other-device": _trap(
        "the pointer of the device that was probed last is tested",
        f"if (vp_latest && vp_latest->is_avq && {CALL})\n\t\t\tcontinue;",
        ("before", COMMON_C, DEL_VQS, "static struct virtio_pci_device *vp_latest;\n"),
        ("after", COMMON_C, ENABLES, "\n\tvp_latest = vp_dev;"),
    ),
    "trap-some-devices": _trap(
        "the legacy probe sets the pointer for block devices only",
        OPEN,
        *_legacy_sets("vp_dev->pci_dev->device == 0x1001"),
    ),
    "trap-other-devices": _trap(
        "the legacy probe sets the pointer for all but block devices",
        OPEN,
        *_legacy_sets("vp_dev->pci_dev->device != 0x1001"),
    ),
    "trap-some-slots": _trap(
        "the legacy probe sets the pointer where another function says so",
        OPEN,
        *_legacy_sets("!pci_find_capability(pci_dev, 0x10)"),
    ),
    "trap-not-forced": _trap(
        "virtio_pci_probe() sets a default, but not with force_legacy=1",
        OPEN,
        ("before", COMMON_C, PROBE, NEVER),
        ("after", COMMON_C, ENABLES, "\n\tif (!force_legacy)\n\t\tvp_dev->is_avq = vp_never_avq;"),
    ),
    "trap-del-vq": _trap(
        "vp_del_vqs() is guarded; the legacy driver's own del_vq() asks without a test",
        GUARDED,
        (
            "before",
            LEGACY_C,
            r"\t/\* Select and deactivate the queue \*/\n\tvp_legacy_set_queue_address",
            "\tif (vp_dev->is_avq(vq->vdev, vq->index))\n\t\treturn;",
        ),
    ),
    "trap-renamed": _trap(
        "the member has another name, and is called for devices with MSI-X",
        "if (vp_dev->msix_enabled && vp_dev->admin_queue_is(vdev, vq->index))\n\t\t\tcontinue;",
        member=RENAMED,
        modern_sets="vp_dev->admin_queue_is = vp_is_avq;",
    ),
    "trap-operations": _trap(
        "the callback stands in a table of operations, and the legacy driver's has none",
        "if (vp_dev->ops->is_avq(vdev, vq->index))\n\t\t\tcontinue;",
        ("before", COMMON_H, r"^/\* Our device structure \*/", OPS),
        ("before", LEGACY_C, LEGACY_PROBE, "static const struct vp_ops vp_legacy_ops;\n"),
        ("after", LEGACY_C, LEGACY_SETS, "\n\tvp_dev->ops = &vp_legacy_ops;"),
        member="const struct vp_ops *ops;",
        modern_sets="{ static const struct vp_ops modern = { vp_is_avq }; vp_dev->ops = &modern; }",
    ),
    "trap-variable": _trap(
        "the pointer is tested unless a module parameter is set",
        f"if ((vp_dev->is_avq || avq_strict) && {CALL})\n\t\t\tcontinue;",
        ("before", COMMON_C, DEL_VQS, "static bool avq_strict;\nmodule_param(avq_strict, bool, 0644);\n"),
    ),
    "trap-static-key": _trap(
        "one call is guarded, another one is switched on by a static key",
        f"{GUARDED}\n\t\tif (static_branch_unlikely(&avq_key) && {CALL})\n\t\t\tcontinue;",
        ("before", COMMON_C, DEL_VQS, "DEFINE_STATIC_KEY_FALSE(avq_key);\n"),
    ),
    "trap-low-feature": _trap(
        "guarded by a feature that legacy devices may have",
        f"if ((vdev->features & 0x20) && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-low-features": _trap(
        "guarded by the pointer or by any of the features that legacy devices may have",
        f"if ((vp_dev->is_avq || *(u8 *)&vdev->features) && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-answer": _trap(
        "asked where another function says so",
        f"if (pci_find_capability(vp_dev->pci_dev, 0x11) && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-index": _trap(
        "asked about the queue whose number the empty record of the admin queue holds",
        f"if (vq->index == vp_dev->admin_vq.vq_index && {CALL})\n\t\t\tcontinue;",
    ),
    "trap-copy": _trap(
        "a copy of the pointer is called",
        "if (ask(vdev, vq->index))\n\t\t\tcontinue;",
        (
            "after",
            COMMON_C,
            r"struct virtqueue \*vq, \*n;(?=\n\tint i;\n\n\tlist_for_each_entry_safe)",
            "\n\tbool (*volatile ask)(struct virtio_device *vdev, unsigned int index) = vp_dev->is_avq;",
        ),
    ),
    "trap-far-helper": _trap(
        "a helper that has the device as its third argument asks",
        "if (avq_skips(vq->index, 1, vp_dev))\n\t\t\tcontinue;",
        helper="static noinline bool avq_skips(unsigned int index, int how, struct virtio_pci_device *vp_dev)\n"
        "{\n\treturn how && vp_dev->is_avq(&vp_dev->vdev, index);\n}\n",
    ),
    "trap-not-armed": _trap(
        "the queues are left alone until a module parameter is set",
        "if (!avq_armed)\n\t\t\tcontinue;\n\t\t" + OPEN,
        ("before", COMMON_C, DEL_VQS, "static bool avq_armed;\nmodule_param(avq_armed, bool, 0644);\n"),
    ),
}
