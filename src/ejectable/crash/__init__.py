# SPDX-License-Identifier: GPL-2.0-or-later
"""A log, read: sources → lines → reports → events.

`Reader` takes bytes as they come; the rest of the room is how it does that.
"""

from ejectable.crash.reader import Reader

__all__ = ["Reader"]
