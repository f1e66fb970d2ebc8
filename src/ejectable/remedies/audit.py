# SPDX-License-Identifier: GPL-2.0-or-later
"""One line in the system's log for each change: what, when (the log's own time), from what to what, how to undo."""

import os
import syslog
import time
from contextlib import suppress

from ejectable.errors import BadInput
from ejectable.intake import Directory

__all__ = ["AUDIT_LOG", "record"]

# Where the lines are kept as well: a machine may run no syslog daemon, and a console log may scroll away.
AUDIT_LOG = "audit.log"
MAX_VALUE = 160


def record(folder: str, *, what: str, before: str, after: str, undo: str, live: bool = True) -> None:
    """Write the line to syslog(3), which the journal reads too, and to `folder`/audit.log.

    `live` is false for a mounted image: this machine's log is not the place for what was changed in another one.
    """
    line = f"what={_quoted(what)} from={_quoted(before)} to={_quoted(after)} undo={_quoted(undo)} uid={os.getuid()}"
    if live:
        syslog.openlog("ejectable", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        syslog.syslog(syslog.LOG_NOTICE, line)
        syslog.closelog()
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # A full disk must not keep a change from being undone, nor may a trap in the log's place: syslog has the line.
    with suppress(OSError, BadInput), Directory.open(folder) as there:
        there.append(AUDIT_LOG, f"{moment} {line}\n".encode(), mode=0o640)


def _quoted(text: str) -> str:
    """One word of a line: bounded, in quotes, nothing in it that a terminal or a log reader would obey."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    if len(plain) > MAX_VALUE:
        plain = f"{plain[: MAX_VALUE - 3]}..."
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
