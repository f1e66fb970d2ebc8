# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages about changing an instance's type: why, at what cost, with which commands."""

from collections.abc import Sequence

from ejectable.model import Device
from ejectable.remedies.commands import paste
from ejectable.remedies.ecs import aliyun_cli
from ejectable.remedies.ecs.instance import Subject
from ejectable.remedies.ecs.names import MODERN_GENERATION, TypeName, successors
from ejectable.remedies.ecs.offers import Described, Offer, Offers, unfit

__all__ = [
    "NOT_ECS",
    "PROOF",
    "already",
    "commands",
    "cost",
    "details",
    "from_elsewhere",
    "guess_details",
    "guessed",
    "guesses",
    "look",
    "offered",
    "on_itself",
    "still_legacy",
]

MOST_SHOWN = 5
NOT_ECS = (
    "This is no instance of Alibaba Cloud, which this is for. Elsewhere the same cure is a kind of machine whose "
    "virtio devices are modern (QEMU: disable-legacy=on)."
)
PROOF = (
    "No public list says which family shows legacy devices: the generation is a hint, and `ejectable check` after the "
    "boot is the proof (feature bit 32)."
)
NVME = (
    "Its disks are attached over NVMe, and are no virtio devices at all (NICs still are): before the change the system "
    "needs the nvme driver in its initramfs, and no /dev/vd* in fstab or on the kernel's command line."
)
DRY = "The dry run answers with the error DryRunOperation if ECS would do it."


def offered(had: Described, new: Offer) -> str:
    """Why: the type was asked for and is on offer."""
    return (
        f"{had.name.name} is {_age(had.name)}; ECS offers {new.described} for this instance, "
        "whose virtio devices should be modern."
    )


def _age(name: TypeName) -> str:
    if name.generation is None:
        return f"not counted among the generations, of which the {MODERN_GENERATION}th is modern"
    if name.modern:
        return f"of generation {name.generation} already"
    return f"older than the {MODERN_GENERATION}th generation"


def guesses(current: TypeName | None, wanted: str | None) -> tuple[tuple[str, ...], str | None]:
    """Types to try where the API was not asked, or why there is none."""
    if wanted is not None:
        return (wanted,), unfit(wanted)
    if current is None:
        return (aliyun_cli.ANY_TYPE,), None
    if current.modern:
        return (), already(current)
    found = successors(current)
    if found:
        return found, None
    return (), (
        f"{current.name} is of a kind that has no counterpart among the general families (it has a GPU, local disks or "
        f"the like): no rule names a successor."
    )


def guessed(current: TypeName | None, names: Sequence[str], not_asked: str) -> str:
    """Why: the best guess."""
    if current is None:
        return f"A type of the {MODERN_GENERATION}th generation or later should show modern devices. {not_asked}"
    return (
        f"{current.name} is {_age(current)}; its successor is likely {names[0]}, "
        f"whose virtio devices should be modern. {not_asked}"
    )


def cost(*, subscription: bool) -> str:
    """What it takes."""
    price = "an order that is paid at once" if subscription else "another price by the hour"
    return f"a stop and a start (some minutes), and {price}"


def commands(
    subject: Subject, name: str, *, across: bool, subscription: bool, ask_first: bool = False
) -> tuple[str, ...]:
    """What to paste on another machine, in this order."""
    region, instance = subject.called
    lines = [aliyun_cli.on_offer(region, instance)] if ask_first else []
    if not subscription:
        lines.append(aliyun_cli.dry_run(region, instance, name, across=across))
    lines += aliyun_cli.stop(region, instance)
    lines.append(aliyun_cli.change_type(region, instance, name, subscription=subscription, across=across))
    return (*lines, *aliyun_cli.start(region, instance))


def details(subject: Subject, had: Described, new: Offer, found: Offers) -> tuple[str, ...]:
    """What was found out."""
    instance, kind = had.instance, had.type
    paid = "a subscription" if instance.subscription else "pay-as-you-go"
    others = [offer.described for offer in found.best if offer is not new][:MOST_SHOWN]
    size = f"{kind.cpu_core_count} vCPU, {kind.memory_size:g} GiB, {kind.cpu_architecture}"
    lines = [f"{instance.instance_id} in {instance.zone_id}: {had.name.name} ({size}), {paid}, {instance.status}."]
    lines.append(f"Of {found.offered} types on offer {len(found.best)} fit{': ' if others else ''}{'; '.join(others)}.")
    if new.nvme:
        lines.append(NVME)
    if new.across:
        lines.append(_migration(had))
    if not instance.subscription:
        lines.append(DRY)
    return (*lines, from_elsewhere(subject, new), PROOF)


def _migration(had: Described) -> str:
    moved = "It moves to another cluster of the zone"
    if had.instance.instance_network_type == "classic":
        return f"{moved}, and its private address changes: it is in the classic network."
    return f"{moved}; its private address stays."


def guess_details(subject: Subject, names: Sequence[str]) -> tuple[str, ...]:
    """What else there is to know of a guess."""
    region, instance = subject.called
    prepaid = aliyun_cli.change_type(region, instance, names[0], subscription=True)
    others = (f"Other guesses: {', '.join(names[1:])}.",) if names[1:] else ()
    return (
        *others,
        f"The first command lists what is on offer. {DRY}",
        f"A subscription is changed by an order that is paid at once, without a dry run: {prepaid}",
        PROOF,
    )


def already(name: TypeName) -> str:
    """It is of a modern generation."""
    return f"{name.name} is of generation {name.generation} already: another type would change nothing."


def still_legacy(name: TypeName, devices: Sequence[Device], forced: Sequence[str]) -> str:
    """Modern by its name, and yet with devices that are not."""
    named = ", ".join(device.nodes[0] if device.nodes else device.name for device in devices[:MOST_SHOWN])
    why = f" force_legacy is set in {', '.join(forced)}: see `force-legacy`." if forced else ""
    return (
        f"{name.name} is of generation {name.generation} already, and yet {named or 'what it has'} is not driven as "
        f"modern: another type would not change that.{why}"
    )


def on_itself(had: Described, new: Offer, *, checked: bool, known: bool) -> str:
    """Why it is not done on the machine that it is for, or that it may be for."""
    asked = "A dry run says that ECS would do it." if checked else "ECS checks the rest once the instance is stopped."
    identifier = had.instance.instance_id
    which = (
        f"{identifier} is this very machine"
        if known
        else f"It cannot be told whether {identifier} is this very machine: the metadata service tells nothing"
    )
    return (
        f"{which}. Stopping it would cut off the command that is to change it to {new.name.name} and start it again. "
        f"{asked}"
    )


def from_elsewhere(subject: Subject, new: Offer) -> str:
    """How to have it done and verified."""
    region, instance = subject.called
    words = ["ejectable", "fix", "instance-type", "--apply", "--instance", instance, "--region", region]
    return f"From another machine: {paste([*words, '--to', new.name.name])}"


def look(identifier: str, word: str) -> str:
    """The next step where it is not proven."""
    if word == "legacy":
        return f"{identifier} is not cured: see `ejectable fix` there for the other remedies."
    return f"Run `ejectable check` on {identifier}: only feature bit 32 of its devices proves that it is cured."
