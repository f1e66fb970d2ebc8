# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair of a source tree, as `fix source-patch` asks for it."""

from pathlib import Path

from ejectable.advisories.cve_2024_42134.repair import repaired
from ejectable.advisories.cve_2024_42134.source import COMMON, FILES, FOLDER, Reading, judge, read
from ejectable.advisories.source_fix import SourceFix, SourceReading
from ejectable.errors import BadInput
from ejectable.kernel.source import CSource, read_source
from ejectable.model import Status

__all__ = ["NullTest"]


class NullTest(SourceFix):
    """The test of the pointer in front of its call."""

    advisory = "CVE-2024-42134"
    module = "virtio_pci"
    folder = FOLDER
    file = COMMON
    files = FILES
    defect = "is_avq is called without a test. The patch below tests the pointer first; read again with it, the source"
    objects = ("virtio_pci_modern.o", "virtio_pci_common.o")
    optional = (("CONFIG_VIRTIO_PCI_LEGACY", "virtio_pci_legacy.o"),)

    def read(self, tree: Path) -> Reading | None:
        """What drivers/virtio says."""
        return read(tree)

    def repaired(self, reading: SourceReading, tree: Path) -> str:
        """The text with the test in it."""
        assert isinstance(reading, Reading)
        text = repaired(reading)
        header, legacy = (read_source(tree / FOLDER / name) for name in FILES[1:])
        after = judge(CSource(text), header, legacy) if header else reading
        if after.status is not Status.FIXED:
            raise BadInput(
                f"a test in front of the call would not be enough ({after.detail}); nothing was changed",
                path=str(tree / FOLDER / COMMON),
            )
        return text

    def no_need(self, reading: SourceReading) -> str:
        """Whether it has the test, is past the defect (v6.11), or never had it."""
        if reading.status is Status.FIXED:
            return f"The tree has the test already: {reading.detail}."
        if reading.common.function("vp_is_avq") is not None:
            return "The tree is past the defect: the callback is gone, and vp_is_avq() asks for the feature (as v6.11)."
        return f"The tree never had the callback: {reading.detail}."
