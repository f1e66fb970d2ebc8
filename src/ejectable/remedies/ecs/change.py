# SPDX-License-Identifier: GPL-2.0-or-later
"""Bringing an instance into a state, and waiting until it is there: stopped, running, of another type.

Each of these may be asked for again: what is so already is left alone. That is what makes them fit to undo a change
that was cut off anywhere.
"""

import time
import uuid

from ejectable.errors import Missing, WrongUsage
from ejectable.remedies.ecs import aliyun_cli
from ejectable.remedies.ecs.answers import Done, Instance, Ordered
from ejectable.remedies.ecs.offers import instance_of
from ejectable.remedies.ecs.refusals import DRY_RUN, Refusal, as_error
from ejectable.remedies.ecs.service import Ecs

__all__ = ["change_type", "ensure_running", "ensure_stopped", "rehearse"]

# Documented: a stop takes up to some minutes where the system takes its time to shut down.
LIMIT_S = 600.0  # of each wait
EVERY_S = 5.0
MOVING = ("Pending", "Starting", "Stopping")
BUSY = ("IncorrectInstanceStatus", "InvalidStatus", "InvalidInstanceStatus", "IncorrectInstanceState")


def rehearse(ecs: Ecs, instance: Instance, name: str, *, across: bool) -> bool:
    """Ask whether the change would be carried out, without carrying it out. False: not while the instance runs.

    Raises what is in the way. A subscription has no such rehearsal: what it may change to was asked for before.
    """
    if instance.status == "Running":
        answer = ecs.try_to("StopInstance", Done, InstanceId=instance.instance_id, DryRun=True)
        _as_rehearsed(answer)
    if instance.subscription:
        return instance.status == "Stopped"
    answer = ecs.try_to("ModifyInstanceSpec", Done, DryRun=True, **_spec(instance, name, across=across))
    if isinstance(answer, Refusal) and answer.means(*BUSY) and instance.status != "Stopped":
        return False
    _as_rehearsed(answer)
    return True


def ensure_stopped(ecs: Ecs, identifier: str, *, limit_s: float = LIMIT_S) -> None:
    """Stop the instance in the ordinary way, where it is not. Its capacity is kept, and its addresses are."""
    instance = _settled(ecs, identifier, limit_s)
    if instance.status == "Stopped":
        return
    ecs.ask("StopInstance", Done, InstanceId=identifier, ForceStop=False, StoppedMode="KeepCharging")
    _wait(ecs, identifier, "Stopped", aliyun_cli.stop(ecs.region, identifier)[0], limit_s)


def ensure_running(ecs: Ecs, identifier: str, *, limit_s: float = LIMIT_S) -> None:
    """Start the instance, where it does not run."""
    instance = _settled(ecs, identifier, limit_s)
    if instance.status == "Running":
        return
    ecs.ask("StartInstance", Done, InstanceId=identifier)
    _wait(ecs, identifier, "Running", aliyun_cli.start(ecs.region, identifier)[0], limit_s)


def change_type(
    ecs: Ecs, identifier: str, name: str, *, across: bool, pay: bool, limit_s: float = LIMIT_S
) -> str | None:
    """Change the type of a stopped instance, and read it back. Gives the number of the order, where there is one.

    `pay` agrees to the order that changing a subscription places. Raises `Missing` where it is refused.
    """
    instance = _settled(ecs, identifier, limit_s)
    if instance.instance_type == name:
        return None
    if instance.subscription and not pay:
        raise Missing(
            f"{identifier} is a subscription: changing its type to {name} places an order, which is not done unasked.",
            hint="Change it in the console.",
        )
    if instance.status != "Stopped":
        raise Missing(f"{identifier} is {instance.status}: its type can be changed while it is Stopped.")
    # With a token, a question that was asked twice is carried out once.
    token = str(uuid.uuid4())
    spec = _spec(instance, name, across=across)
    if instance.subscription:
        order = ecs.ask("ModifyPrepayInstanceSpec", Ordered, RegionId=ecs.region, ClientToken=token, **spec)
    else:
        order = ecs.ask("ModifyInstanceSpec", Ordered, ClientToken=token, **spec)
    end = time.monotonic() + limit_s
    while (seen := instance_of(ecs, identifier)).instance_type != name:
        if time.monotonic() > end:
            raise Missing(
                f"{identifier} is still {seen.instance_type}, although ECS agreed to change it to {name}.",
                hint="Is there an order that waits to be paid?",
            )
        ecs.pause(EVERY_S)
    return order.order_id


def _settled(ecs: Ecs, identifier: str, limit_s: float) -> Instance:
    """The instance, once it is neither starting nor stopping."""
    end = time.monotonic() + limit_s
    while (instance := instance_of(ecs, identifier)).status in MOVING:
        if time.monotonic() > end:
            raise Missing(f"{identifier} has been {instance.status} for {limit_s:.0f} s.", hint="Look in the console.")
        ecs.pause(EVERY_S)
    if instance.status not in ("Running", "Stopped"):
        raise WrongUsage(f"{identifier} is {instance.status!r}: neither Running nor Stopped.")
    return instance


def _wait(ecs: Ecs, identifier: str, state: str, line: str, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while (instance := instance_of(ecs, identifier)).status != state:
        if time.monotonic() > end:
            raise Missing(
                f"{identifier} is {instance.status}, not {state}, after {limit_s:.0f} s.", hint=f"See to it: {line}"
            )
        ecs.pause(EVERY_S)


def _spec(instance: Instance, name: str, *, across: bool) -> dict[str, object]:
    spec: dict[str, object] = {"InstanceId": instance.instance_id, "InstanceType": name}
    if across:
        spec["MigrateAcrossZone" if instance.subscription else "AllowMigrateAcrossZone"] = True
    return spec


def _as_rehearsed(answer: Done | Refusal) -> None:
    """The one good answer to a rehearsal is an error; a plain success would mean that it was carried out."""
    if isinstance(answer, Refusal):
        if answer.code == DRY_RUN:
            return
        raise as_error(answer)
    raise Missing("ECS did not answer the dry run as it documents: nothing more is asked of it.")
