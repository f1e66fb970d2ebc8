# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advisory's signature says of one event of a log."""

import msgspec

from ejectable.model import Doubt, Status

__all__ = ["Recognition"]


class Recognition(msgspec.Struct, frozen=True):
    """What a signature says of an event."""

    status: Status  # affected: it is this defect's crash; unknown: it may be
    confidence: float  # 0..1
    why: str
    advisory: str | None = None  # whose crash it is
    known_as: str | None = None  # another known defect that it is
    fix: str | None = None  # what repairs that one, as a sentence
    device_kind: str | None = None  # "a disk"
    doubts: tuple[Doubt, ...] = ()
