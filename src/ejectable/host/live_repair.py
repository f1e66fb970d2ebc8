# SPDX-License-Identifier: GPL-2.0-or-later
"""What `ejectable fix live` has left on a machine: the mark of a boot, and sources that DKMS builds.

The mark is one line, `BOOT_ID RELEASE STRIKES`: the module was loaded in that boot of that kernel, and so many boots
right before it had loaded it and not ended in good order. Whoever ends one in good order takes the mark away.
"""

import re

import msgspec

from ejectable.host.root import Root

__all__ = ["AUTOINSTALL", "BOOT_ID", "MARK", "MOST_STRIKES", "LiveRepair", "read_live_repair"]

MARK = "/var/lib/ejectable/live-loaded"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MOST_STRIKES = 2  # so many boots in a row that did not end in good order, and it is not loaded any more
SOURCES, NAME = "/usr/src", "ejectable-live-"
MOST_SOURCES, MOST_CONF = 64, 1 << 16
# dkms(8) takes any word as yes, "no" as well: DKMS 3.0 and older test `[[ ! $AUTOINSTALL ]]`.
AUTOINSTALL = re.compile(rb"""^[ \t]*AUTOINSTALL=(?!["']{0,2}[ \t]*(?:#.*)?$).*$\n?""", re.MULTILINE)


class LiveRepair(msgspec.Struct, frozen=True):
    """What was left; `strikes` counts boots in a row that loaded the module and did not end in good order."""

    strikes: int = 0
    release: str | None = None  # the kernel of the last of them
    # Paths of configurations of ours that make DKMS try each new kernel, and fail its installation.
    faulty_dkms: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """What a person must know of it."""
        said = []
        if self.faulty_dkms:
            said.append(
                f"{', '.join(self.faulty_dkms)} makes DKMS try ejectable's module with each new kernel (AUTOINSTALL), "
                "which fails the installation of that kernel."
            )
        if self.strikes:
            boots = "boot" if self.strikes == 1 else f"{self.strikes} boots"
            last = self.strikes >= MOST_STRIKES
            then = "it is not loaded any more" if last else "it is loaded once more, and not after another one"
            said.append(f"The last {boots} that loaded the live repair did not end in good order: {then}.")
        return tuple(said)


def read_live_repair(root: Root) -> LiveRepair:
    """Read the mark and the configurations of DKMS."""
    strikes, release = _strikes(root.text(MARK, 256), root.text(BOOT_ID, 64))
    return LiveRepair(strikes, release, tuple(_faulty(root)))


def _strikes(mark: str | None, boot: str | None) -> tuple[int, str | None]:
    if mark is None:
        return 0, None
    words = [*mark.split(), "", ""]
    before = int(words[2]) if words[2].isdecimal() and len(words[2]) < 4 else 0
    # This boot's own mark says nothing yet of how this boot ends.
    return before + (words[0] != boot), words[1] or None


def _faulty(root: Root) -> list[str]:
    names = [name for name in root.list(SOURCES) or () if name.startswith(NAME)][:MOST_SOURCES]
    paths = [f"{SOURCES}/{name}/dkms.conf" for name in sorted(names)]
    return [path for path in paths if AUTOINSTALL.search(root.read(path, MOST_CONF) or b"")]
