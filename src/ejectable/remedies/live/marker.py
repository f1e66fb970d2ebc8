# SPDX-License-Identifier: GPL-2.0-or-later
"""The mark that the module was loaded in this boot: if it outlives the boot, that boot did not end in good order.

It is on the disk before the module is loaded. It goes when the machine shuts down in good order, when the module was
in for half an hour without harm, or when a person takes the repair back. It is in no record of changes: what undoes an
interrupted change must not take away the only trace of the crash that interrupted it.

One mark of another boot is a strike, and may be a power cut: the module is loaded once more, and the mark says so. The
second in a row is the last: it is not loaded again before somebody has looked. guard.sh does the same at boot;
`host.live_repair` reads the mark.
"""

from ejectable import host
from ejectable.errors import Missing
from ejectable.host.live_repair import BOOT_ID, MARK, MOST_STRIKES
from ejectable.remedies import machine_files

__all__ = ["MARK", "ask", "boot_id", "clear", "set_mark"]


def boot_id(root: host.Root) -> str:
    """This boot's own number (Documentation/admin-guide/sysctl/kernel.rst); raises `Missing`."""
    found = root.text(BOOT_ID, 64)
    if not found:
        raise Missing(f"{BOOT_ID} cannot be read: this boot cannot be told from the last one.", hint="Mount /proc.")
    return found


def ask(root: host.Root) -> None:
    """Raises `Missing` if the module was loaded in the last boots, and none of them ended in good order."""
    left = host.read_live_repair(root)
    if left.strikes >= MOST_STRIKES:
        raise Missing(
            f"The last {left.strikes} boots that loaded the module (kernel {left.release or 'not known'}) did not end "
            "in good order: it is not loaded again.",
            hint=f"Look why (`ejectable crash` reads the journal, pstore and vmcore-dmesg). If it was the power: "
            f"sudo rm {MARK}",
        )


def set_mark(root: host.Root, release: str) -> None:
    """Mark this boot; on the disk when this returns. Raises `Missing` where it cannot be written."""
    strikes = host.read_live_repair(root).strikes
    try:
        place = machine_files.look(root, MARK).real
        machine_files.write(root, place, f"{boot_id(root)} {release} {strikes}\n".encode(), mode=0o644)
    except OSError as error:
        raise Missing(f"{MARK} could not be written: {error.strerror}.", hint="Make room for it.") from error


def clear(root: host.Root) -> list[str]:
    """Take the mark away, whichever boot it is of: somebody has looked. Says so, where there was one."""
    found = machine_files.look(root, MARK)
    if found.content is None:
        return []
    try:
        machine_files.remove(root, found.real)
    except OSError as error:
        raise Missing(f"{MARK} could not be removed: {error.strerror}.", hint="Remove it by hand.") from error
    return [f"Removed {MARK}."]
