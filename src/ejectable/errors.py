# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong, and the exit code that each kind of it has.

    EjectableError
    ├── WrongUsage          64  the command line asks for something that does not exist
    ├── BadInput            65  the input is not what was asked for
    │   ├── DamagedInput    65  it is the right kind of thing, but broken or cut off
    │   └── NotSupported    65  it is a kernel of another architecture
    ├── Missing             69  a tool, a package, a file or a permission is needed
    │   ├── Denied          69  it is there, and this user may not have it
    │   └── Ended           69  a confined process ended before it had an answer
    └── OurFault            70  a bug in ejectable

Every message is a whole sentence that names the thing, what was expected and what was found; the hint says
what to do next. Exit codes 0, 2 and 3 are verdicts, not errors: see `ejectable.model.exit_code`.
"""

from typing import ClassVar

__all__ = [
    "BadInput",
    "DamagedInput",
    "Denied",
    "EjectableError",
    "Ended",
    "Missing",
    "NotSupported",
    "OurFault",
    "WrongUsage",
]


class EjectableError(Exception):
    """The root of all errors that are reported to the user as one sentence, without a traceback."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WrongUsage(EjectableError, ValueError):
    """The command line asks for something that does not exist."""

    exit_code = 64


class BadInput(EjectableError, ValueError):
    """The input is not what was asked for.

    `path` names the file (or `path(member)` inside a package), `offset` is in bytes into it, where known.
    """

    exit_code = 65

    def __init__(
        self, message: str, *, path: str | None = None, offset: int | None = None, hint: str | None = None
    ) -> None:
        where = path or ""
        if offset is not None:
            where += f" at offset {offset:#x}"
        super().__init__(f"{where.strip()}: {message}" if where else message, hint=hint)
        self.path = path
        self.offset = offset


class NotSupported(BadInput):
    """A kernel of an architecture whose code cannot be read here; `arch` names it."""

    def __init__(self, message: str, *, arch: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.arch = arch


class DamagedInput(BadInput):
    """The input is of the right kind, but broken, cut off or out of bounds."""


class Missing(EjectableError, LookupError):
    """A tool, package, file or permission is needed; the hint says how to get it."""

    exit_code = 69


class Denied(Missing):
    """It is there, and this user may not read or write it; the hint says who may."""


class Ended(Missing):
    """The process that read foreign bytes, or ran foreign code, ended before it had an answer."""


class OurFault(EjectableError, RuntimeError):
    """Something that cannot happen did: a bug in ejectable."""

    exit_code = 70
