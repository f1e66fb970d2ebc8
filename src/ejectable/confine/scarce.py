# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this process has any memory to spare: what fails where it has none is no fault of the program."""

__all__ = ["memory_is_scarce"]

# What a library takes when it is loaded: Unicorn's is 20 MiB, with its data and what it links to.
SPARE = 48 << 20


def memory_is_scarce() -> bool:
    """Whether so much address space is not to be had as the libraries need; under `ulimit -v`, say."""
    try:
        bytes(SPARE)  # zeros that nobody touches: address space only
    except MemoryError:
        return True
    return False
