# SPDX-License-Identifier: GPL-2.0-or-later
"""Two runs: virtnet_poll() while the queue says "there is more", and the queue asked what it says once it is broken."""

import msgspec

from ejectable.advisories.cleantx_spin import BREAKS
from ejectable.errors import Missing
from ejectable.experiment import Bench, Observation, Result, calls, spins, state
from ejectable.kernel.machine import Bounds, Outcome
from ejectable.kernel.program import Program

__all__ = ["experiment"]

POLL, ASK = "virtnet_poll", "virtqueue_enable_cb_delayed"
LOCK = "_raw_spin_trylock"
SHORT = Bounds(instructions=5000)
UNSEEN = 5  # completions that the driver has not seen


def experiment(bench: Bench) -> Result:
    """Whether the driver asks a broken queue for ever."""
    ring = bench.elsewhere(ASK)
    if ring is None:
        return bench.unknown(f"{ASK}() was not found: the virtio_ring module is missing")
    more, done = _poll(bench, 0), _poll(bench, 1)
    if not calls(done, ASK, times=1):
        return bench.unknown(f"{POLL}() was not seen to ask once whether there is more: {done.story()}")
    if not spins(more):
        return bench.not_there(f"{POLL}() does not ask until there is no more: {more.story()}")
    bench.say(f"{POLL}() asks as long as the answer is that there is more: {spins(more).detail}.")
    split, packed = (_answer(bench, ring, packed=packed, broken=True) for packed in (False, True))
    sound = _answer(bench, ring, broken=False), _answer(bench, ring, packed=True, broken=False)
    idle = _answer(bench, ring, broken=False, unseen=False)
    result = bench.decide(affected=split | packed, fixed=~split & ~packed, control=sound[0] & sound[1] & ~idle)
    return msgspec.structs.replace(result, claim=BREAKS if _breaks(bench) else None)


def _breaks(bench: Bench) -> bool:
    """Whether the bus breaks all queues at shutdown; also where that cannot be seen."""
    bus = bench.elsewhere("unregister_virtio_device")
    if bus is None:
        return True
    try:
        return bench.scene(program=bus).pointed_to("virtio_bus", "bus_type", "shutdown") != 0
    except Missing:
        return True


def _poll(bench: Bench, answer: int) -> Outcome:
    """The poll of a device with one pair of queues, while the send queue gives this answer."""
    scene = bench.scene(
        follow=("virtnet_poll_cleantx", "free_old_xmit*", "__free_old_xmit*"),
        stubs={ASK: answer, LOCK: 1},
        bounds=SHORT,
    )
    device = scene.new("virtio_device")
    network = scene.new("net_device", _tx=scene.array("netdev_queue", 1)[0])
    info = scene.new("virtnet_info", vdev=device, dev=network, curr_queue_pairs=1, max_queue_pairs=1)
    receive = scene.new("receive_queue", having=("vq", "napi"), vq=scene.new("virtqueue", vdev=device))
    send = scene.array("send_queue", 1, having=("vq", "napi"))[0]
    send.set(vq=scene.new("virtqueue", vdev=device, index=1))
    send.sub("napi").set(weight=64)
    info.set(sq=send, rq=receive)
    device.set(priv=info)
    return scene.run(POLL, receive.sub("napi"), 64)


def _answer(bench: Bench, ring: Program, *, packed: bool = False, broken: bool, unseen: bool = True) -> Observation:
    """Whether the queue says that there is more to do."""
    scene = bench.scene(program=ring, follow=(f"{ASK}_*", "more_used*", "is_used*"))
    queue = scene.new("vring_virtqueue", broken=broken)
    used = scene.alloc()
    if packed:
        # Nothing but zeroes is a descriptor that was used, in the first round of the ring.
        queue.sub("packed.vring").set(desc=scene.alloc(), driver=scene.alloc(), device=scene.alloc(), num=256)
        if queue.has("packed_ring"):
            queue.set(packed_ring=1)
        else:  # since v6.20
            queue.set(layout=(scene.machine.types.enum("vq_layout") or {})["VQ_LAYOUT_PACKED"])
    else:
        queue.sub("split.vring").set(used=used, avail=scene.alloc(), num=256)
        scene.machine.memory.write(used + 2, (UNSEEN if unseen else 0).to_bytes(2, "little"))
    outcome = scene.run(ASK, queue.sub("vq"))
    more = outcome.exit == "returned" and not (outcome.value or 0) & 0xFF
    kind = "packed" if packed else "split"
    words = (
        f"of a {'broken' if broken else 'sound'} {kind} queue, {ASK}() says that there is {'' if more else 'no '}more"
    )
    return state(outcome, words, more)
