# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine, read: devices, release, kernel in use, panic policy, cloud. Everything below one root, nothing beyond."""

from ejectable.host.bootloader import NextBoot, boots_next
from ejectable.host.facts import Facts, read
from ejectable.host.installed import Candidate, candidates, installed_images, module_files, releases
from ejectable.host.live_repair import LiveRepair, read_live_repair
from ejectable.host.policy import Policy
from ejectable.host.root import Root
from ejectable.host.running import PatchedFunction, Running, build_id, oopsed, read_running

__all__ = [
    "Candidate",
    "Facts",
    "LiveRepair",
    "NextBoot",
    "PatchedFunction",
    "Policy",
    "Root",
    "Running",
    "boots_next",
    "build_id",
    "candidates",
    "installed_images",
    "module_files",
    "oopsed",
    "read",
    "read_live_repair",
    "read_running",
    "releases",
]
