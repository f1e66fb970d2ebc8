# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are on the disk already and were not booted yet: where one is good, the remedy is a reboot."""

from collections.abc import Iterator

import msgspec

from ejectable import host
from ejectable.assess import initramfs
from ejectable.host import NextBoot, boots_next
from ejectable.host.installed import natural
from ejectable.remedies.situation import Situation
from ejectable.remedies.upgrade.flavour import flavour, newer
from ejectable.remedies.upgrade.verify import Judged, judge_installed

__all__ = ["Ready", "image_of", "ready"]

MOST_JUDGED = 3  # each costs about a second the first time


class Ready(msgspec.Struct, frozen=True):
    """A good kernel on the disk, and whether it is the one that boots next."""

    release: str
    path: str
    judged: Judged
    boots: NextBoot

    @property
    def next(self) -> bool:
        """Whether a mere reboot is enough, by the boot loader's own files."""
        return self.boots.certain and self.boots.release == self.release


def image_of(root: host.Root, release: str) -> str | None:
    """Where the image of a release is, by its name."""
    return next((one.path for one in host.candidates(root, release) if one.named_for_it), None)


def ready(situation: Situation, running: str) -> tuple[Ready | None, tuple[str, ...]]:
    """The kernel to reboot into, and what was found of those that are no good.

    The one that boots next is looked at first; then newer ones of the same flavour, the newest first.
    """
    root = situation.root
    boots = boots_next(root)
    said = []
    for release in list(_worth_it(root, running, boots))[:MOST_JUDGED]:
        path = image_of(root, release)
        if path is None or not _whole(root, running, release):
            said.append(f"{release} is not installed completely.")
            continue
        judged = judge_installed(situation, path)
        if judged.word == "good" and judged.release in (None, release):
            return Ready(release, path, judged, boots), tuple(said)
        if judged.word == "good":
            said.append(f"{path} is not what its name says: the kernel in it is {judged.release}.")
        else:
            said.append(f"{path} is installed and was not booted yet: {judged.word}: {judged.why}.")
    return _replaced(situation, running, boots), tuple(said)


def _replaced(situation: Situation, running: str, boots: NextBoot) -> Ready | None:
    """The files of the running release, where an upgrade replaced the bad ones by good ones and nobody rebooted."""
    path = image_of(situation.root, running)
    if path is None or boots.release not in (None, running):
        return None
    judged = judge_installed(situation, path)
    return Ready(running, path, judged, boots) if (judged.word, judged.release) == ("good", running) else None


def _worth_it(root: host.Root, running: str, boots: NextBoot) -> Iterator[str]:
    if boots.release and boots.release != running:
        yield boots.release
    kind = flavour(running)
    for release in sorted(host.releases(root), key=natural, reverse=True):
        if release not in (running, boots.release) and flavour(release) == kind and newer(release, running):
            yield release


def _whole(root: host.Root, running: str, release: str) -> bool:
    """Whether it can boot as far as files tell: an initramfs is there if the kernel in use has one."""
    return not initramfs.names(root, running) or bool(initramfs.names(root, release))
