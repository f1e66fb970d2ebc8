# SPDX-License-Identifier: GPL-2.0-or-later
"""Why something could not be had: from the system's number to an error for a person and a doubt for a verdict."""

import errno
import stat

from ejectable.errors import BadInput, Denied, EjectableError, Missing
from ejectable.model import Doubt, DoubtKind

__all__ = ["as_ours", "doubt_of", "kind_of_file"]

# What open(2), openat2(2) and readlink(2) answer where a name leads nowhere.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
REFUSED = frozenset({errno.EACCES, errno.EPERM})
SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


def as_ours(error: OSError | ValueError, name: str) -> EjectableError:
    """The error that says what the system refused about the file `name`, and what to do."""
    if not isinstance(error, OSError):  # Python refuses a zero byte in a path before the system sees it
        return Missing(f"{name}: no such file: a name holds no zero byte.", hint="Check the path.")
    if error.errno in ABSENT:
        return Missing(f"{name}: no such file.", hint="Check the path.")
    if error.errno in REFUSED:
        return Denied(f"{name}: may not be read by this user.", hint="Run it as root, or as the owner.")
    if error.errno == errno.ENAMETOOLONG:
        return Missing(f"{name}: no such file: the name is longer than a file's can be.", hint="Check the path.")
    if error.errno == errno.ELOOP:
        return Missing(f"{name}: no such file: the links on the way lead in a circle.", hint="Name the file itself.")
    if error.errno in SHORT_OF:
        return Missing(f"{name}: cannot be opened: {error.strerror}.", hint="Make room, or run fewer at once.")
    if error.errno == errno.ENXIO:
        return BadInput("expected a regular file, found a socket or a device without a driver", path=name)
    return BadInput(f"cannot be read: {error.strerror or error}", path=name)


def doubt_of(error: OSError | ValueError | EjectableError, where: str) -> Doubt:
    """The doubt that is left where `where` could not be read."""
    if isinstance(error, Denied):
        return Doubt(DoubtKind.PERMISSION, where, f"{where} may not be read by this user.")
    if isinstance(error, Missing):
        return Doubt(DoubtKind.MISSING, where, f"{where} is not there.")
    if isinstance(error, EjectableError):
        return Doubt(DoubtKind.UNREADABLE, where, f"{where} could not be read: {error.message}.")
    number = getattr(error, "errno", None)
    why = getattr(error, "strerror", None) or error
    if number in REFUSED:
        return Doubt(DoubtKind.PERMISSION, where, f"{where} may not be read by this user.")
    if number in ABSENT or number == errno.ENAMETOOLONG:
        return Doubt(DoubtKind.MISSING, where, f"{where} is not there.")
    if number == errno.ELOOP:
        return Doubt(DoubtKind.UNREADABLE, where, f"{where} leads through links in a circle, or out of the tree.")
    return Doubt(DoubtKind.UNREADABLE, where, f"{where} could not be read: {why}.")


def kind_of_file(mode: int) -> str:
    """What a file of this mode (stat(2), `st_mode`) is, with its article."""
    for test, word in (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return word
    return "something else"
