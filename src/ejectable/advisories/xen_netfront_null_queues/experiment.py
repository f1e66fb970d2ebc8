# SPDX-License-Identifier: GPL-2.0-or-later
"""A Xen NIC that resumes, and is closed before its back end is connected again."""

from ejectable.experiment import Bench, Result, ends, state
from ejectable.kernel.machine import Outcome

__all__ = ["FUNCTION", "RESUME", "experiment"]

FUNCTION, RESUME = "xennet_close", "netfront_resume"
QUEUES = 2
FOLLOW = ("xennet_*",)


def experiment(bench: Bench) -> Result:
    """Whether closing uses queues that the resume has dropped."""
    resumed, dropped = _resume(bench)
    without, with_queues = _close(bench, queues=False), _close(bench, queues=True)
    wild = [call for call in without.calls if call.name == "napi_disable" and call.arguments[0] < 1 << 20]
    stopped = [call for call in with_queues.calls if call.name == "napi_disable"]
    uses = bool(wild) or (without.fault is not None and without.fault.address < 1 << 20)
    control = ends(resumed) & state(with_queues, "both queues were stopped where there are any", len(stopped) == QUEUES)
    if not dropped:
        # d50b7914fae0 (v6.1) made resume drop them; before that they are never missing.
        kept = state(resumed, "a resume keeps the queues, so that they are there when the NIC is closed", True)
        return bench.decide(affected=~kept, fixed=kept, control=control, absent=True)
    detail = "napi_disable() was called on a queue at NULL" if wild else without.story()
    return bench.decide(
        affected=state(without, detail, uses),
        fixed=state(without, "closing without queues touches none", not uses) & ends(without),
        control=control,
    )


def _resume(bench: Bench) -> tuple[Outcome, bool]:
    scene = bench.scene(follow=FOLLOW)
    net, private = scene.with_private("net_device", "netfront_info")
    private.set(netdev=net, queues=scene.alloc(scene.size("netfront_queue")))
    device = scene.new("xenbus_device")
    device.sub("dev").set(driver_data=private)
    outcome = scene.run(RESUME, device)
    return outcome, private.queues == 0


def _close(bench: Bench, *, queues: bool) -> Outcome:
    scene = bench.scene(follow=FOLLOW)
    net, private = scene.with_private("net_device", "netfront_info")
    net.real_num_tx_queues = QUEUES
    private.netdev = net
    if queues:
        private.queues = scene.alloc(QUEUES * scene.size("netfront_queue"))
    return scene.run(FUNCTION, net)
