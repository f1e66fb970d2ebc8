# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that detach a device while the machine is stopped, for a person to run.

There is no `--apply`: which data may go, and what still needs it, is a decision; a file system is unmounted and its
line taken out of fstab inside the machine, before; and the machine that is to be stopped cannot start itself again.
"""

import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from ejectable.errors import Missing, WrongUsage
from ejectable.model import Applied, Device, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.detach.attachments import Attachment, attachments, named
from ejectable.remedies.detach.hosts import Place, recipe
from ejectable.remedies.ecs.instance import CLOUD, Subject, subject_of
from ejectable.remedies.ecs.metadata import MetadataService
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation

__all__ = ["DetachWhileStopped"]

ID = re.compile(r"[\w.:/-]{1,128}")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ECS_ID = re.compile(r"(d|eni)-[a-z0-9]{5,40}")
COST = "a stop and a start of the machine"
WHY = "A device of a machine that is stopped is never unplugged hot: the faulty code does not run."
NOT_VIRTIO = "A disk that is attached over NVMe is no virtio device: detaching it hot does not meet this defect."


class DetachWhileStopped(Remediation):
    """The commands that detach one disk or network card with the machine stopped."""

    name: ClassVar[str] = "detach-while-stopped"
    options: ClassVar[tuple[str, ...]] = ("instance", "region", "device")
    durable: ClassVar[bool] = False
    on_demand: ClassVar[bool] = True
    applies: ClassVar[bool] = False
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "anywhere"
    needs_root: ClassVar[bool] = False

    def __init__(self, *, service: Callable[[], MetadataService] = MetadataService) -> None:
        self._service = service

    def status(self, situation: Situation, request: Request) -> Status:
        """Of another machine nothing can be seen from here."""
        return Status.UNKNOWN if request.instance else situation.assessment.status

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Possible where a disk or a network card would crash the machine, or may, and the machine can do without."""
        wanted = request.device
        if wanted is not None and not ID.fullmatch(wanted):
            raise WrongUsage(
                f"{wanted!r} is no name of a device.", hint="It looks like `vdb`, `virtio1` or `d-bp1...`."
            )
        if wanted is not None and re.match(r"(/dev/)?nvme\d", wanted):
            return self.impossible(f"{wanted}: it is not needed. {NOT_VIRTIO}")
        cloud = situation.facts.host.cloud
        if request.instance is not None:
            subject = subject_of(situation.root, cloud, request, offline=situation.offline)
            if subject.other:
                return self._elsewhere(subject, wanted)
        found = attachments(situation.root, situation.assessment.devices)
        one, problem = _chosen(found, situation.endangered, wanted)
        if one is None:
            return self.impossible(problem if (unseen := _unseen(situation, found, wanted)) is None else unseen)
        place = self._place(situation, request, one, wanted)
        said = recipe(place, one)
        rest = [each.called for each in found if each is not one and _able(each, situation.endangered)]
        choice = (f"Others that could go: {', '.join(rest)} (--device).",) if rest and wanted is None else ()
        return Remedy(
            self.name,
            "possible",
            f"{WHY}{_in_use(one)} For {one.called} ({said.host}):",
            said.commands,
            verified=False,
            cost=COST,
            details=(*_before(one), *said.notes, *choice, *_after(one, place)),
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """It is for a person: see the module's text."""
        del situation, request, changes
        raise WrongUsage("`detach-while-stopped` is for people to carry out.")

    def _elsewhere(self, subject: Subject, wanted: str | None) -> Remedy:
        """For an ECS instance that was named: what it has, only its own system knows."""
        kind = "nic" if wanted and wanted.startswith("eni-") else "disk"
        known = wanted if wanted and ECS_ID.fullmatch(wanted) else None
        device = Device(wanted or "the disk", "pci", None, kind, None, (), "unknown", None, "unknown", "")
        place = Place(
            CLOUD,
            instance=subject.instance,
            region=subject.region,
            disk=known if kind == "disk" else None,
            nic=known if kind == "nic" else None,
        )
        said = recipe(place, Attachment(device, None))
        notes = ("Whether it would crash only that machine can tell: `ejectable check` there.", NOT_VIRTIO)
        why = f"{WHY} For {device.name} of {subject.instance} ({said.host}):"
        details = (*said.notes, *notes)
        return Remedy(self.name, "possible", why, said.commands, verified=False, cost=COST, details=details)

    def _place(self, situation: Situation, request: Request, one: Attachment, wanted: str | None) -> Place:
        """What the host calls this machine and its parts, as far as it can be told from inside."""
        facts = situation.facts.host
        uuid = situation.root.text("/sys/class/dmi/id/product_uuid", 64) or ""
        place = Place(facts.cloud, facts.virtualization, uuid=uuid.lower() if UUID.fullmatch(uuid) else None)
        if facts.cloud != CLOUD:
            return place
        subject = subject_of(situation.root, CLOUD, request, offline=situation.offline)
        return Place(
            CLOUD,
            facts.virtualization,
            instance=subject.instance,
            region=subject.region,
            uuid=place.uuid,
            nic=self._nic(situation, one),
            disk=wanted if wanted and re.fullmatch(r"d-[a-z0-9]{5,40}", wanted) else None,
        )

    def _nic(self, situation: Situation, one: Attachment) -> str | None:
        """The id of a network interface, which the metadata service knows by its MAC address."""
        if one.mac is None or situation.offline or not situation.root.live:
            return None
        path = f"network/interfaces/macs/{one.mac}/network-interface-id"
        try:
            told = self._service().read([path]).get(path, "")
        except Missing:
            return None
        return told if ECS_ID.fullmatch(told) else None


def _chosen(
    found: Sequence[Attachment], endangered: Sequence[Device], wanted: str | None
) -> tuple[Attachment | None, str]:
    """The device to detach, or why there is none."""
    if wanted is not None:
        one = named(found, wanted)
        if one is None:
            known = ", ".join(each.called for each in found) or "none"
            return None, f"There is no disk or network card {wanted!r} on the virtio bus here; there are: {known}."
        if one.device not in endangered:
            return None, f"{one.called} can go while the machine runs: {one.device.reason}."
        if one.own:
            return None, f"The machine cannot do without {one.called}: {one.own}."
        return one, ""
    if not endangered:
        return None, "No device here would crash the machine: each can go while it runs."
    able = [each for each in found if _able(each, endangered)]
    if able:
        # A disk first, and of those one that nothing uses.
        return min(able, key=lambda each: (each.device.kind != "disk", bool(each.used), each.called)), ""
    own = [f"{each.called} ({each.own})" for each in found if each.device in endangered and each.own]
    rest = [device.name for device in endangered if device.kind not in ("disk", "nic")]
    return None, (
        "What would crash the machine is nothing that could be detached by itself: "
        f"{', '.join([*own, *(f'{name} (a part of the machine)' for name in rest)]) or 'unknown'}."
    )


def _unseen(situation: Situation, found: Sequence[Attachment], wanted: str | None) -> str | None:
    """Why nothing can be said of the devices, where not all of them were seen; `None` where that does not matter."""
    assessment = situation.assessment
    seen = wanted is not None and named(found, wanted) is not None
    complete = assessment.status is not Status.UNKNOWN and not assessment.doubts
    if seen or situation.endangered or complete:
        return None
    notes = assessment.notes[:1] or tuple(doubt.detail for doubt in assessment.doubts[:1])
    return f"Which devices are here, and which of them can go while it runs, is not known. {' '.join(notes)}".rstrip()


def _able(one: Attachment, endangered: Sequence[Device]) -> bool:
    return one.device in endangered and one.own is None


def _in_use(one: Attachment) -> str:
    """What would miss it: said where nobody overlooks it."""
    return (
        f" {one.called} is in use ({', '.join(one.used)}): stop what needs it first, and unmount it."
        if one.used
        else ""
    )


def _before(one: Attachment) -> tuple[str, ...]:
    """What has to be done inside the machine first."""
    if one.device.kind != "disk":
        return ()
    line = "has a line for it" if one.in_fstab else "may have a line for it (UUID=, LABEL=)"
    return (f"First: /etc/fstab {line}; without `nofail` in it, the next boot waits for the disk and stops.",)


def _after(one: Attachment, place: Place) -> tuple[str, ...]:
    """What else there is to know."""
    if one.device.kind == "disk" and place.cloud == CLOUD:
        return (NOT_VIRTIO,)
    return ()
