# SPDX-License-Identifier: GPL-2.0-or-later
"""The letters of `Tainted:`, in words."""

__all__ = ["TAINT", "words"]

# Documentation/admin-guide/tainted-kernels.rst; U and N are younger than the first table.
TAINT = {
    "P": "a proprietary module was loaded",
    "F": "a module was force loaded",
    "S": "the kernel runs on a processor or system out of specification",
    "R": "a module was force unloaded",
    "M": "the processor reported a machine check",
    "B": "a bad page was found",
    "U": "a user asked for this taint",
    "D": "the kernel has died before (an Oops or BUG)",
    "A": "an ACPI table was overridden",
    "W": "a warning was issued before",
    "C": "a staging driver was loaded",
    "I": "a firmware bug was worked round",
    "O": "a module from outside the kernel tree was loaded",
    "E": "an unsigned module was loaded",
    "L": "a soft lockup occurred before",
    "K": "the kernel was live patched",
    "X": "auxiliary taint of the distribution",
    "T": "built with the struct randomization plugin",
    "N": "a test was run in the kernel",
    "J": "firmware of the processor misbehaved",
}


def words(letters: str) -> tuple[str, ...]:
    """Each letter's meaning, in the order printed; G only says that nothing proprietary is there."""
    return tuple(TAINT[letter] for letter in dict.fromkeys(letters) if letter in TAINT)
