# SPDX-License-Identifier: GPL-2.0-or-later
"""How the virtio devices of another instance are driven: the one proof that a new type has helped.

No public list says which family shows legacy devices, so bit 32 (VIRTIO_F_VERSION_1) is read where it stands, in sysfs
of the instance, by Cloud Assistant, which runs one command there that changes nothing.
"""

import base64
import re
from typing import Literal

import msgspec

from ejectable.errors import EjectableError
from ejectable.remedies.ecs.answers import InvocationResults, Invoked
from ejectable.remedies.ecs.service import Ecs

__all__ = ["COMMAND", "Devices", "devices_of", "judged"]

# include/uapi/linux/virtio_config.h; the file holds a character for each bit. Before a driver is bound all are zero and
# say nothing (virtio_dev_probe, drivers/virtio/virtio.c).
COMMAND = (
    "cd /sys/bus/virtio/devices && for d in virtio*; do "
    'echo "$d $(cut -c33 "$d/features") $(test -e "$d/driver" && echo bound || echo unbound)"; done'
)
TIMEOUT_S = 60
ATTEMPTS = 24
EVERY_S = 5.0
ENDED = ("Failed", "Timeout", "Error", "Invalid", "Aborted", "Cancelled", "Terminated")
# Cloud Assistant comes up some time after the instance is Running.
NOT_YET = ("ClientNotRunning", "ClientNotResponse", "InstanceNotRunning")


class Devices(msgspec.Struct, frozen=True):
    """What was seen. `why` is a sentence."""

    word: Literal["modern", "legacy", "unknown"]
    why: str


def devices_of(ecs: Ecs, identifier: str) -> Devices:
    """Look at an instance that runs; never raises: what could not be seen is `unknown`, with the reason."""
    try:
        text = _printed(ecs, identifier)
    except EjectableError as error:
        return Devices("unknown", f"Cloud Assistant could not be asked: {error.message}")
    if text is None:
        return Devices("unknown", "Cloud Assistant on the instance gave no answer.")
    return judged(text)


def judged(text: str) -> Devices:
    """What the command's output means."""
    found = re.findall(r"^(virtio\d{1,6}) ([01]) (bound|unbound)$", text, re.MULTILINE)
    if not found or len(found) != len(text.splitlines()):
        return Devices("unknown", "Cloud Assistant's answer does not show how the devices are driven.")
    legacy = [name for name, bit, driver in found if bit == "0" and driver == "bound"]
    if legacy:
        return Devices("legacy", f"Still driven as legacy devices (feature bit 32 is not set): {', '.join(legacy)}.")
    open_ = [name for name, bit, _ in found if bit == "0"]
    if open_:
        return Devices("unknown", f"No driver has negotiated the features of {', '.join(open_)} yet.")
    return Devices("modern", f"All {len(found)} virtio devices are driven as modern (feature bit 32 is set in each).")


def _printed(ecs: Ecs, identifier: str) -> str | None:
    """What the command printed there; `None` where it did not end well."""
    content = base64.b64encode(COMMAND.encode()).decode()
    invoked: Invoked | None = None
    for _ in range(ATTEMPTS):
        if invoked is None:
            invoked = ecs.ask(
                "RunCommand",
                Invoked,
                RegionId=ecs.region,
                Type="RunShellScript",
                CommandContent=content,
                ContentEncoding="Base64",
                InstanceId=[identifier],
                Timeout=TIMEOUT_S,
                Name="ejectable-check",
            )
        which = {"RegionId": ecs.region, "InvokeId": invoked.invoke_id, "InstanceId": identifier}
        result = ecs.ask("DescribeInvocationResults", InvocationResults, **which).first
        if result is not None and result.invocation_status == "Success":
            return _plain(result.output)
        if result is not None and result.error_code.startswith(NOT_YET):
            invoked = None  # asked too early: once more
        elif result is not None and result.invocation_status in ENDED:
            return None
        ecs.pause(EVERY_S)
    return None


def _plain(output: str) -> str | None:
    try:
        return base64.b64decode(output, validate=True).decode("ascii", "replace").strip()
    except ValueError:
        return None
