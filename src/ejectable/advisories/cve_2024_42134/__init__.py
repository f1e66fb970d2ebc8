# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-42134: unplugging a legacy virtio device calls a null pointer."""

from ejectable.advisories.advisory import Advisory

__all__ = ["ADVISORY"]

ADVISORY = Advisory(
    "CVE-2024-42134", "hot-unplugging a legacy virtio device calls a null pointer in vp_del_vqs()", package=__name__
)
