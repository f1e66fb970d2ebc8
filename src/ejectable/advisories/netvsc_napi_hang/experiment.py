# SPDX-License-Identifier: GPL-2.0-or-later
"""netvsc_device_remove() on a NIC with two channels, of which one is open yet."""

from ejectable.experiment import Bench, Result, calls, ends, state
from ejectable.kernel.machine import Outcome

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "netvsc_device_remove"
DELETES = ("__netif_napi_del", "__netif_napi_del_locked", "netif_napi_del")


def experiment(bench: Bench) -> Result:
    """Whether the receive polling of a channel is disabled that was never enabled, which waits for ever."""
    part, whole = _remove(bench, opened=1), _remove(bench, opened=2)
    both = calls(whole, "napi_disable", times=2)
    deleted = sum(call.name in DELETES for call in part.calls) >= 2
    polled = state(part, "the polling of both channels was taken down", deleted)
    return bench.decide(
        affected=calls(part, "napi_disable", times=2),
        fixed=calls(part, "napi_disable", times=1),
        control=ends(part) & ends(whole) & both & polled,
    )


def _remove(bench: Bench, *, opened: int) -> Outcome:
    """Two channels; `opened` of them have their queue enabled."""
    scene = bench.scene()
    net, context = scene.with_private("net_device", "net_device_context")
    device = scene.new("hv_device", channel=scene.new("vmbus_channel"))
    device.sub("device").set(driver_data=net)
    context.set(nvdev=scene.new("netvsc_device", num_chn=2), device_ctx=device)
    net.set(real_num_rx_queues=opened, real_num_tx_queues=opened)
    return scene.run(FUNCTION, device)
