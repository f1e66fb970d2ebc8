# SPDX-License-Identifier: GPL-2.0-or-later
"""When a device must go now: stop the instance first. A device of a stopped machine is never unplugged hot."""

from ejectable.remedies.detach.remedy import DetachWhileStopped

__all__ = ["DetachWhileStopped"]
