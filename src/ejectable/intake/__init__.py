# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes from outside: opened without surprises, read and unpacked within bounds, written whole or not at all.

The one place below `kernel`, `host` and `crash` that touches files, so that a limit holds everywhere.
"""

from ejectable.intake.bounded import read_bounded
from ejectable.intake.compression import Compression, decompress, sniff
from ejectable.intake.directory import Directory
from ejectable.intake.files import is_directory, is_file, open_regular, write_atomically
from ejectable.intake.folders import cache_folder, open_cache, private_folder
from ejectable.intake.inputs import Input, file_below, file_input, stream_input
from ejectable.intake.limits import DEFAULT_LIMITS, Limits
from ejectable.intake.root import Root
from ejectable.intake.seen import Recording, Seen
from ejectable.intake.streams import beyond, open_decompressed

__all__ = [
    "DEFAULT_LIMITS",
    "Compression",
    "Directory",
    "Input",
    "Limits",
    "Recording",
    "Root",
    "Seen",
    "beyond",
    "cache_folder",
    "decompress",
    "file_below",
    "file_input",
    "is_directory",
    "is_file",
    "open_cache",
    "open_decompressed",
    "open_regular",
    "private_folder",
    "read_bounded",
    "sniff",
    "stream_input",
    "write_atomically",
]
