# SPDX-License-Identifier: GPL-2.0-or-later
"""The mark that the module was loaded in this boot: if it outlives the boot, that boot ended in a crash.

It is on the disk before the module is loaded. It goes when the machine shuts down in good order, when the module was
in for half an hour without harm, or when the module is unloaded. A mark of another boot therefore says: the machine
went down hard shortly after the module was loaded. Then it is not loaded again before somebody has looked.

The mark is one line, `BOOT_ID RELEASE`; the same file is read and written by guard.sh at boot.
"""

from pathlib import Path

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies.changes import Changes

__all__ = ["MARK", "ask", "boot_id", "clear", "set_mark"]

MARK = "/var/lib/ejectable/live-loaded"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id(root: host.Root) -> str:
    """This boot's own number (Documentation/admin-guide/sysctl/kernel.rst); raises `Missing`."""
    found = root.text(BOOT_ID, 64)
    if not found:
        raise Missing(f"{BOOT_ID} cannot be read: this boot cannot be told from the last one.", hint="Mount /proc.")
    return found


def ask(root: host.Root) -> None:
    """Raises `Missing` if the module was loaded in an earlier boot that did not end in good order."""
    text = root.text(MARK, 256)
    if text is None:
        return
    boot, _, release = text.partition(" ")
    if boot != boot_id(root):
        raise Missing(
            f"The last boot that loaded the module (kernel {release or 'not known'}) did not end in good order: it is "
            "not loaded again.",
            hint=f"Look why (`ejectable crash` reads the journal, pstore and vmcore-dmesg). If it was a power cut: "
            f"sudo rm {MARK}",
        )


def set_mark(root: host.Root, release: str, changes: Changes) -> None:
    """Mark this boot; on the disk when this returns."""
    changes.write(MARK, f"{boot_id(root)} {release}\n".encode())


def clear(root: host.Root) -> list[str]:
    """Take the mark away, whichever boot it is of: somebody has looked. Says so, where there was one."""
    place = root.file(MARK)
    if place is None:
        return []
    try:
        Path(place).unlink()
    except OSError as error:
        raise Missing(f"{MARK} could not be removed: {error.strerror}.", hint="Remove it by hand.") from error
    return [f"Removed {MARK}."]
