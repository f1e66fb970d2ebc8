# SPDX-License-Identifier: GPL-2.0-or-later
"""On Alibaba Cloud: move to an instance type whose virtio devices are modern, where the defect does not reach them."""

import time
from collections.abc import Callable
from typing import ClassVar, Literal

from ejectable.errors import EjectableError, Missing, WrongUsage
from ejectable.model import Applied, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.ecs import messages
from ejectable.remedies.ecs.change import change_type, ensure_running, ensure_stopped, rehearse
from ejectable.remedies.ecs.instance import CLOUD, Subject, is_here, subject_of
from ejectable.remedies.ecs.names import parse
from ejectable.remedies.ecs.offers import Described, Offer, chosen, describe, instance_of, offers
from ejectable.remedies.ecs.proof import Devices, devices_of
from ejectable.remedies.ecs.service import Ecs, credentials_likely, installed
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import ChangeInstanceType, Reach, StartInstance, StopInstance

__all__ = ["InstanceType"]

# A plan is looked at, not waited for; a change has the time it takes.
PLAN_PATIENCE_S = 2.0
APPLY_PATIENCE_S = 120.0


class InstanceType(Remediation):
    """Change the type of an ECS instance to one of the 8th generation or later, and look whether that has helped.

    `pause` waits between two looks at the instance, in seconds.
    """

    name: ClassVar[str] = "instance-type"
    options: ClassVar[tuple[str, ...]] = ("to", "instance", "region")
    durable: ClassVar[bool] = True
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "anywhere"
    needs_root: ClassVar[bool] = False
    reach: ClassVar[Reach] = Reach(StopInstance, ChangeInstanceType, StartInstance)

    def __init__(self, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause

    def status(self, situation: Situation, request: Request) -> Status:
        """Of another instance nothing can be known from here but its type, which proves nothing."""
        return Status.UNKNOWN if request.instance else situation.assessment.status

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Possible on ECS where a type is on offer that fits; without the API, where the rules know a successor."""
        if request.instance is None and situation.facts.host.cloud != CLOUD:
            return self.impossible(messages.NOT_ECS)
        subject = subject_of(situation.root, situation.facts.host.cloud, request, offline=situation.offline)
        if not subject.other and (nothing := self._nothing_to_gain(situation, subject)) is not None:
            return nothing
        not_asked = _why_not(situation, subject)
        if not_asked is None:
            try:
                return self._asked(situation, subject, request)
            except WrongUsage as error:
                return self.impossible(_whole(error), details=subject.notes)
            except EjectableError as error:
                not_asked = _whole(error)
        return self._guessed(subject, request, not_asked)

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Rehearse, stop, change, start, read back, and look at the devices. Never of the machine that this runs on:
        it would cut off the command that is to start it again.
        """
        if situation.offline:
            raise WrongUsage("`instance-type` asks the API of ECS, and --offline forbids it.", hint="Leave it away.")
        if request.instance is None and situation.facts.host.cloud != CLOUD:
            raise WrongUsage(
                "Which instance? This machine is none of Alibaba Cloud.", hint="Give --instance and --region."
            )
        subject = subject_of(situation.root, situation.facts.host.cloud, request, offline=False)
        if subject.instance is None or subject.region is None:
            raise WrongUsage("Which instance, and in which region?", hint="Give --instance and --region.")
        if not installed():
            raise Missing("The SDK of Alibaba Cloud is not installed.", hint="pip install 'ejectable[cloud]'")
        here = is_here(subject.instance) if subject.other else True
        situation.tell("asking the API of ECS")
        with Ecs(subject.region, patience_s=APPLY_PATIENCE_S, tell=situation.tell, pause=self._pause) as ecs:
            had = describe(ecs, subject.instance)
            name = had.name.name
            if had.instance.status not in ("Running", "Stopped"):
                raise Missing(
                    f"{subject.instance} is {had.instance.status}.", hint="Wait until it is Running or Stopped."
                )
            # What is of a modern generation already is looked at, and not moved unasked.
            if request.to != name and not (request.to is None and had.name.modern):
                new = chosen(had, offers(ecs, had), request.to)
                if had.instance.subscription and request.to is None:
                    raise WrongUsage(
                        f"{subject.instance} is a subscription: changing its type places an order, paid at once.",
                        hint=f"Name the type, to agree to it: --to {new.name.name}",
                    )
                situation.tell(f"dry run: {had.name.name} to {new.name.name}")
                checked = rehearse(ecs, had.instance, new.name.name, across=new.across)
                if here is not False:
                    raise WrongUsage(
                        messages.on_itself(had, new, checked=checked, known=here is True),
                        hint=messages.from_elsewhere(subject, new),
                    )
                self._move(ecs, situation, had, new, changes)
                name = new.name.name
            return self._seen(ecs, situation, subject.instance, name, changes)

    def _asked(self, situation: Situation, subject: Subject, request: Request) -> Remedy:
        """The plan with what the API says."""
        assert subject.region is not None
        assert subject.instance is not None
        situation.tell("asking the API of ECS")
        with Ecs(subject.region, patience_s=PLAN_PATIENCE_S, tell=situation.tell, pause=self._pause) as ecs:
            had = describe(ecs, subject.instance)
            if had.name.modern and request.to is None:
                return self.impossible(messages.already(had.name), details=(messages.PROOF,))
            on_offer = offers(ecs, had)
        new = chosen(had, on_offer, request.to)
        return Remedy(
            self.name,
            "possible",
            messages.offered(had, new),
            messages.commands(subject, new.name.name, across=new.across, subscription=had.instance.subscription),
            verified=False,  # that it is on offer was asked; that it helps only the machine can show afterwards
            cost=messages.cost(subscription=had.instance.subscription),
            details=(*messages.details(subject, had, new, on_offer), *subject.notes),
        )

    def _guessed(self, subject: Subject, request: Request, not_asked: str) -> Remedy:
        """The plan without the API."""
        current = parse(subject.type or "")
        names, problem = messages.guesses(current, request.to)
        if problem:
            return self.impossible(problem, details=(not_asked, *subject.notes))
        return Remedy(
            self.name,
            "possible",
            messages.guessed(current, names, not_asked),
            messages.commands(subject, names[0], across=False, subscription=False, ask_first=True),
            verified=False,
            cost=messages.cost(subscription=False),
            details=(*messages.guess_details(subject, names), *subject.notes),
        )

    def _nothing_to_gain(self, situation: Situation, subject: Subject) -> Remedy | None:
        """Where another type would not help this machine, or has helped already."""
        if not situation.needed:
            return self.impossible("Nothing here would crash: another type would change nothing.")
        current = parse(subject.type or "")
        modern = current is not None and bool(current.modern)
        # How they are driven counts, not what an unplug would do: a kernel that was repaired live is as before after
        # the next boot.
        devices = [device for device in situation.assessment.devices if device.transport == "pci"]
        others = [device for device in devices if device.mode != "modern"]
        if devices and not others:
            why = "Every virtio device here is driven as modern (feature bit 32), where the defect does not reach it"
            if modern:
                return Remedy(self.name, "done", f"{why}; the type is {subject.type}.", (), verified=True)
            return self.impossible(f"{why}: another type would change nothing.")
        if current is not None and modern:
            return self.impossible(messages.still_legacy(current, others, situation.facts.forced_legacy))
        return None

    def _move(self, ecs: Ecs, situation: Situation, had: Described, new: Offer, changes: Changes) -> None:
        """Stop, change, start: each on record with what takes it back."""
        identifier, old, name = had.instance.instance_id, had.name.name, new.name.name
        was_running = had.instance.status == "Running"
        if was_running:
            situation.tell(f"stopping {identifier}")
            with changes.step(StopInstance(ecs.region, identifier)):
                ensure_stopped(ecs, identifier)
            # What could not be rehearsed while it ran is rehearsed now, before anything is changed.
            rehearse(ecs, instance_of(ecs, identifier), name, across=new.across)
        situation.tell(f"changing {identifier} to {name}")
        # The order of a subscription is not taken back unasked: undoing says so, and that is tried before a stop is.
        paid = had.instance.subscription
        with changes.step(ChangeInstanceType(ecs.region, identifier, old, name, started_later=paid and was_running)):
            order = change_type(ecs, identifier, name, across=new.across, pay=True)
        if order:
            changes.done.append(f"Its order is {order}.")
        if was_running:
            situation.tell(f"starting {identifier}")
            with changes.step(StartInstance(ecs.region, identifier, old if paid else "")):
                ensure_running(ecs, identifier)

    def _seen(self, ecs: Ecs, situation: Situation, identifier: str, name: str, changes: Changes) -> Applied:
        """What became of it, as the API and the instance itself show it."""
        instance = instance_of(ecs, identifier)
        if instance.instance_type != name:
            raise Missing(
                f"{identifier} is {instance.instance_type}, not {name}, after all.", hint="Look in the console."
            )
        if instance.status == "Running":
            situation.tell(f"looking at the devices of {identifier}")
            devices = devices_of(ecs, identifier)
        else:
            devices = Devices("unknown", f"It is {instance.status}, as it was before.")
        return Applied(
            self.name,
            tuple(changes.done),
            verified=devices.word == "modern",
            why=f"{identifier} is {name}. {devices.why}",
            next_steps=() if devices.word == "modern" else (messages.look(identifier, devices.word),),
            undo="ejectable fix instance-type --undo" if changes.done else None,
        )


def _why_not(situation: Situation, subject: Subject) -> str | None:
    """Why the API is not asked; `None` where it is."""
    if situation.offline:
        return "The API of ECS was not asked: --offline."
    if subject.instance is None or subject.region is None:
        return "The API of ECS was not asked: which instance and region this is, is not known (--instance, --region)."
    if not credentials_likely(role=subject.role):
        return (
            "The API of ECS was not asked: there are no credentials (ALIBABA_CLOUD_ACCESS_KEY_ID and ..._SECRET, "
            "`aliyun configure`, or a RAM role for the instance)."
        )
    if not installed():
        return "The API of ECS was not asked: its SDK is not installed (pip install 'ejectable[cloud]')."
    return None


def _whole(error: EjectableError) -> str:
    return " ".join(filter(None, (error.message, error.hint)))
