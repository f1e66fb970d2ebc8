# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders for one run to build and unpack in: as root, never where somebody else may put another one in their place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ejectable.errors import Missing
from ejectable.intake import Directory, private_folder
from ejectable.remedies.acting import acting
from ejectable.remedies.ownership import other_writer

__all__ = ["workspace"]


@contextmanager
def workspace(what: str, *, large: bool = False) -> Iterator[Directory]:
    """As `intake.private_folder`, for what other programs find by its path; raises `Missing` where others rule it.

    The sticky bit, as /tmp has it, is enough: others may add to the folder that it is in, and may not rename what is
    root's there.
    """
    with private_folder(what, large=large) as folder:
        above = Path(folder.name).parent
        if (os.geteuid() == 0 or acting()) and (said := other_writer(above, shared=True)):
            raise Missing(
                f"Nothing is built or unpacked in {above}: {said}.", hint="Unset TMPDIR, or set it to one of root's."
            )
        yield folder
