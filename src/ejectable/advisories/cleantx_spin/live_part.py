# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair in a kernel that runs: virtqueue_enable_cb_delayed() answers true of a broken queue, as 0d0eff39ceb3 does.

Whether the queue is broken is asked first: the function is called for nearly each packet that was sent.
"""

from ejectable.advisories.live_part import Is, LivePart, Return, Same, Starts

__all__ = ["LIVE"]

QUEUE = "-vring_virtqueue.vq"
BOOLEAN = 0xFE  # bits that no bool has

LIVE = LivePart(
    advisory="virtio-net-cleantx-spin",
    function="virtqueue_enable_cb_delayed",
    module="virtio_ring",
    does="a broken queue is not polled any more",
    danger="a network device whose queues are broken keeps a processor busy for ever",
    ours=(Is(f"{QUEUE} +vring_virtqueue.broken", 1, mask=0xFF),),
    layout=(
        Same("+virtqueue.list.next > +list_head.prev", "& +virtqueue.list"),
        Is(f"{QUEUE} +vring_virtqueue.packed_ring", 0, mask=BOOLEAN),
        Is(f"{QUEUE} +vring_virtqueue.weak_barriers", 0, mask=BOOLEAN),
        Is(f"{QUEUE} +vring_virtqueue.event", 0, mask=BOOLEAN),
        Starts(f"{QUEUE} +vring_virtqueue.notify", ""),
    ),
    defect=(),
    action=Return(1),
)
