# SPDX-License-Identifier: GPL-2.0-or-later
"""Which types an instance may be changed to, the closest first."""

from collections.abc import Sequence

import msgspec

from ejectable.errors import Missing, WrongUsage
from ejectable.remedies.ecs.answers import Instance, Instances, InstanceType, InstanceTypes, Modifications
from ejectable.remedies.ecs.names import MODERN_GENERATION, TypeName, parse
from ejectable.remedies.ecs.service import Ecs

__all__ = ["Described", "Offer", "Offers", "chosen", "describe", "instance_of", "offers", "ranked", "unfit"]

MOST_PAGES = 30
PAGE = 100  # types in one answer, the API's own maximum
# "The same or the next": twice as much, or the smallest that the general families have (c8i.large).
MOST_GROWTH = 2
SMALLEST = (2, 4.0)  # vCPUs, GiB


class Described(msgspec.Struct, frozen=True):
    """An instance, with what its type is."""

    instance: Instance
    type: InstanceType
    name: TypeName


class Offer(msgspec.Struct, frozen=True):
    """A type to move to. Memory in GiB; `across` says that it is in another cluster of the zone."""

    type: InstanceType
    name: TypeName
    stock: str
    across: bool

    @property
    def nvme(self) -> bool:
        """Its disks are attached over NVMe, and are no virtio devices at all."""
        return self.type.nvme_support == "required"

    @property
    def described(self) -> str:
        """One line for a person."""
        size = f"{self.type.cpu_core_count} vCPU, {self.type.memory_size:g} GiB"
        nvme = ", disks over NVMe" if self.nvme else ""
        scarce = ", little in stock" if self.stock == "ClosedWithStock" else ""
        return f"{self.name.name} ({size}{nvme}{scarce})"


class Offers(msgspec.Struct, frozen=True):
    """What fits, the closest first; and how many types the API offered in all."""

    best: tuple[Offer, ...]
    offered: int


def instance_of(ecs: Ecs, identifier: str) -> Instance:
    """The instance; raises `WrongUsage` where there is none of that id in this region."""
    import json

    answer = ecs.ask("DescribeInstances", Instances, RegionId=ecs.region, InstanceIds=json.dumps([identifier]))
    for one in answer.instances.instance:
        if one.instance_id == identifier:
            return one
    raise WrongUsage(
        f"There is no instance {identifier} in {ecs.region}, or not for these credentials.",
        hint="Check --instance and --region.",
    )


def describe(ecs: Ecs, identifier: str) -> Described:
    """The instance and its type; raises `Missing` where the API does not know the type it has just named."""
    instance = instance_of(ecs, identifier)
    name = parse(instance.instance_type)
    found = _pages(ecs, InstanceTypes=[instance.instance_type])
    kind = next((one for one in found if one.instance_type_id == instance.instance_type), None)
    if name is None or kind is None:
        raise Missing(
            f"ECS does not describe {instance.instance_type!r}, the type of {identifier}.",
            hint="Choose a type in the console.",
        )
    return Described(instance, kind, name)


def offers(ecs: Ecs, current: Described) -> Offers:
    """What the API offers for this instance and fits it. Types of its own cluster are preferred to a migration."""
    offered: set[str] = set()
    for across in (False, True):
        found = _on_offer(ecs, current, across=across)
        offered |= set(found)
        candidates = [name for name in map(parse, found) if name is not None and name.modern]
        if candidates:
            types = {one.instance_type_id: one for one in _fitting(ecs, current.type)}
            best = ranked(
                current,
                [Offer(types[name.name], name, found[name.name], across) for name in candidates if name.name in types],
            )
            if best:
                return Offers(best, len(offered))
    return Offers((), len(offered))


def chosen(current: Described, found: Offers, wanted: str | None) -> Offer:
    """The offer to take: the one that was asked for, else the best. Raises what is in the way."""
    instance = current.instance
    if instance.local_storage_amount or current.type.local_storage_amount or current.type.gpu_amount:
        raise WrongUsage(
            f"{current.name.name} has a GPU or local disks: no general type takes its place, and its type cannot be "
            "changed without losing them.",
            hint="`ejectable fix` shows the other remedies.",
        )
    if instance.spot_strategy not in ("", "NoSpot"):
        raise WrongUsage(
            f"{instance.instance_id} is a preemptible instance: once stopped, it may not come back.",
            hint="Create one of another type instead.",
        )
    if wanted is not None:
        if problem := unfit(wanted):
            raise WrongUsage(problem)
        for offer in found.best:
            if offer.name.name == wanted:
                return offer
    if not found.best:
        raise WrongUsage(
            f"Of the {found.offered} types that ECS offers for {instance.instance_id}, none is of generation "
            f"{MODERN_GENERATION} or later with the same architecture and the same or the next size.",
            hint="Ask again later: what is in stock changes.",
        )
    if wanted is not None:
        raise WrongUsage(
            f"{wanted} is not on offer for {instance.instance_id}, or does not fit it.",
            hint=f"These are: {', '.join(offer.name.name for offer in found.best[:8])}.",
        )
    return found.best[0]


def unfit(wanted: str) -> str | None:
    """Why a type that was asked for cannot be the cure, by its name; `None` where it may be."""
    name = parse(wanted)
    if name is None:
        return f"{wanted!r} is no instance type of ECS: they look like `ecs.g8i.large`."
    if name.modern is None:
        return f"{wanted} is outside of the general families: its number cannot be compared with {MODERN_GENERATION}."
    if not name.modern:
        return f"{wanted} is of generation {name.generation}: generation {MODERN_GENERATION} or later is what helps."
    return None


def ranked(current: Described, found: Sequence[Offer]) -> tuple[Offer, ...]:
    """Those that fit, the closest first: as many vCPUs and as much memory, or the next size; then disks attached as
    before, the same kind, the same maker's processor, nothing extra to pay for, the smallest step in generations.
    """

    def far(offer: Offer) -> tuple[float, float, bool, bool, bool, bool, bool, int, str]:
        return (
            offer.type.cpu_core_count - current.type.cpu_core_count,
            offer.type.memory_size - current.type.memory_size,
            offer.stock == "ClosedWithStock",
            offer.nvme and current.type.nvme_support != "required",
            offer.name.kind != current.name.kind,
            current.name.kind is not None and offer.name.maker != current.name.maker,
            not offer.name.plain and offer.name.suffix != current.name.suffix,
            offer.name.generation or 0,
            offer.name.name,
        )

    return tuple(sorted((offer for offer in found if _fits(current, offer)), key=far))


def _fits(current: Described, offer: Offer) -> bool:
    had, new = current.type, offer.type
    most_vcpus, most_memory = _most(had)
    return (
        bool(offer.name.modern)
        and offer.name.name != current.name.name
        and new.cpu_architecture == had.cpu_architecture
        # A whole server is another kind of machine, with other devices: not a thing to slip in.
        and offer.name.metal == current.name.metal
        and had.cpu_core_count <= new.cpu_core_count <= most_vcpus
        and had.memory_size <= new.memory_size <= most_memory
        and new.gpu_amount == 0
        and not new.local_storage_amount
    )


def _most(had: InstanceType) -> tuple[int, float]:
    return max(had.cpu_core_count * MOST_GROWTH, SMALLEST[0]), max(had.memory_size * MOST_GROWTH, SMALLEST[1])


def _on_offer(ecs: Ecs, current: Described, *, across: bool) -> dict[str, str]:
    """Type → stock. A subscription may go up or down in price, and each is asked for by itself."""
    instance = current.instance
    found: dict[str, str] = {}
    for operation in ("Upgrade", "Downgrade") if instance.subscription else ("Upgrade",):
        answer = ecs.ask(
            "DescribeResourcesModification",
            Modifications,
            RegionId=ecs.region,
            ResourceId=instance.instance_id,
            DestinationResource="InstanceType",
            OperationType=operation,
            MigrateAcrossZone=across,
        )
        found = answer.on_offer | found
    return found


def _fitting(ecs: Ecs, had: InstanceType) -> list[InstanceType]:
    """All types of about this size; the API's own filter spares some hundred others."""
    most_vcpus, most_memory = _most(had)
    return _pages(
        ecs,
        CpuArchitecture=had.cpu_architecture or None,
        MinimumCpuCoreCount=had.cpu_core_count,
        MaximumCpuCoreCount=most_vcpus,
        MinimumMemorySize=had.memory_size,
        MaximumMemorySize=most_memory,
    )


def _pages(ecs: Ecs, **wanted: object) -> list[InstanceType]:
    """Every page of DescribeInstanceTypes."""
    found: list[InstanceType] = []
    token: str | None = None
    for _ in range(MOST_PAGES):
        page = ecs.ask("DescribeInstanceTypes", InstanceTypes, MaxResults=PAGE, NextToken=token, **wanted)
        found += page.instance_types.instance_type
        token = page.next_token or None
        if token is None:
            return found
    raise Missing("ECS lists instance types without end.", hint="Choose a type in the console.")
