# SPDX-License-Identifier: GPL-2.0-or-later
"""bdev_mark_dead() on a block device with a dirty page, gone by surprise and in good order."""

from ejectable.experiment import Bench, Result, calls, ends, state
from ejectable.kernel.machine import Outcome

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "bdev_mark_dead"
# sync_blockdev() is inlined in some builds; what it calls is not.
SYNCS = ("sync_blockdev", "filemap_write_and_wait_range", "filemap_write_and_wait", "filemap_fdatawrite_range")


def experiment(bench: Bench) -> Result:
    """Whether a device that is gone is written to; one that is only to be removed must be."""
    gone, orderly = _mark(bench, surprise=True), _mark(bench, surprise=False)
    writes = calls(gone, *SYNCS)
    spared = state(gone, "nothing is written to a device that is gone", not writes)
    return bench.decide(affected=writes, fixed=spared, control=ends(gone) & calls(orderly, *SYNCS))


def _mark(bench: Bench, *, surprise: bool) -> Outcome:
    scene = bench.scene()
    device, mapping = scene.new("block_device"), scene.new("address_space", nrpages=1)
    if device.has("bd_mapping"):  # since 224941e8379a "use ->bd_mapping instead of ->bd_inode->i_mapping" (v6.10)
        device.bd_mapping = mapping
    else:
        device.bd_inode = scene.new("inode", i_mapping=mapping)
    return scene.run(FUNCTION, device, int(surprise))
