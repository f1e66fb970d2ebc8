# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advisory says that a person can do about its defect, as a remedy: it is shown, and never carried out."""

from typing import ClassVar, Literal

from ejectable.advisories import Advisory, Workaround
from ejectable.errors import WrongUsage
from ejectable.model import Applied, Device, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation

__all__ = ["ByHand"]

MOST_DEVICES = 8  # whose commands are shown


class ByHand(Remediation):
    """One workaround of one advisory."""

    durable: ClassVar[bool] = False
    applies: ClassVar[bool] = False
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "tree"
    needs_root: ClassVar[bool] = False

    def __init__(self, advisory: Advisory, workaround: Workaround) -> None:
        self.advisory = advisory
        self._workaround = workaround

    @property
    def name(self) -> str:  # type: ignore[override]  # each object has its own
        """The workaround's."""
        return self._workaround.name

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Possible where a device meets the defect, or may, by an operation that it is for."""
        del request
        exposed = [device for device in situation.assessment.devices if self._helps(device)]
        if not exposed:
            return self.impossible(f"Nothing here meets {self.advisory.id}: there is no need.")
        commands = dict.fromkeys(
            _filled(command, device, situation)
            for device in exposed[:MOST_DEVICES]
            for command in self._workaround.commands
        )
        where = " It is done on the host of the virtual machine." if self._workaround.where == "host" else ""
        return Remedy(
            self.name,
            "possible",
            f"{self._workaround.why}{where} ({self.advisory.id})",
            tuple(commands),
            verified=False,
            cost=self._workaround.cost,
        )

    def _helps(self, device: Device) -> bool:
        avoids = self._workaround.avoids
        return any(
            one.advisory == self.advisory.id
            and one.status in (Status.AFFECTED, Status.UNKNOWN)
            and (not avoids or one.operation in avoids)
            for one in device.exposures
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Raise `WrongUsage`: it is for people."""
        del situation, request, changes
        raise WrongUsage(f"`{self.name}` is for people to carry out.")


def _filled(command: str, device: Device, situation: Situation) -> str:
    """The command for this device; what is not known of it stays as a word to fill in."""
    known = {
        "address": device.address or "ADDRESS",
        "name": device.name,
        "node": device.nodes[0] if device.nodes else "NODE",
        "release": situation.facts.host.kernel_release or "RELEASE",
    }
    for word, value in known.items():
        command = command.replace("{" + word + "}", value)
    return command
