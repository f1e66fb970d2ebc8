# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-53240: a Xen NIC is detached right after a resume."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "XenNetfrontNullQueues"]


class XenNetfrontNullQueues(Advisory):
    """netfront_resume() drops the queues, and xennet_close() uses them."""

    id = "CVE-2024-53240"
    title = "detaching a Xen NIC right after a resume uses queues that are gone"
    code = CodeUnder(
        functions=("xennet_close",), module="xen_netfront", option="CONFIG_XEN_NETDEV_FRONTEND", menus=("CONFIG_XEN",)
    )
    proven = False
    operations = race(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.SUSPEND)
    remedies = (
        *USUAL,
        Workaround(
            "link-first",
            "Wait until the interface is up again after a resume or a migration before it is detached.",
            ("ip link show {node}",),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Resume a NIC, and close one that has no queues."""
        from ejectable.advisories.xen_netfront_null_queues.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A network card of Xen's."""
        del finding
        if device.bus != "xen" or device.kind != "nic":
            return None
        if device.driver is None:
            return spared("no driver is bound")
        return meets(
            "a network card of Xen's", "closed before its back end is connected again, it would use a null queue"
        )

    @property
    def signature(self) -> Signature:
        """A fault on the page at NULL under the closing of the interface."""
        return Signature(
            kinds=("null-deref", "paging-fault", "gpf"),
            at=r"napi_disable|del_timer_sync|timer_delete_sync|xennet_close|xennet_disconnect_backend|lock_timer_base",
            needs=("xennet_close|xennet_disconnect_backend",),
            told="a queue that a resume had dropped was used",
        )


ADVISORY = XenNetfrontNullQueues()
