# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API of ECS answers, as far as it is used: the shapes of version 2014-05-26.

Field names are the API's. As there, memory is in MiB in DescribeInstances, and in GiB in DescribeInstanceTypes.
"""

import msgspec

__all__ = [
    "Done",
    "Instance",
    "InstanceType",
    "InstanceTypes",
    "Instances",
    "InvocationResults",
    "Invoked",
    "Modifications",
    "Ordered",
]


class Done(msgspec.Struct, frozen=True, rename="pascal"):
    """An answer that holds nothing but the request's number."""

    request_id: str | None = None


class Ordered(msgspec.Struct, frozen=True, rename="pascal"):
    """ModifyInstanceSpec, ModifyPrepayInstanceSpec: the order, where there is one."""

    order_id: str | None = None


class Instance(msgspec.Struct, frozen=True, rename="pascal"):
    """One instance."""

    instance_id: str
    instance_type: str
    status: str  # Pending, Running, Starting, Stopping, Stopped
    region_id: str = ""
    zone_id: str = ""
    instance_name: str = ""
    instance_charge_type: str = "PostPaid"  # pay-as-you-go; PrePaid: subscription
    instance_network_type: str = "vpc"  # or classic
    spot_strategy: str = "NoSpot"
    cpu: int = 0
    memory: int = 0  # MiB
    gpu_amount: int = msgspec.field(default=0, name="GPUAmount")
    local_storage_amount: int | None = None

    @property
    def subscription(self) -> bool:
        """Paid in advance."""
        return self.instance_charge_type == "PrePaid"


class _InstanceList(msgspec.Struct, frozen=True, rename="pascal"):
    instance: tuple[Instance, ...] = ()


class Instances(msgspec.Struct, frozen=True, rename="pascal"):
    """DescribeInstances."""

    instances: _InstanceList


class InstanceType(msgspec.Struct, frozen=True, rename="pascal"):
    """One instance type."""

    instance_type_id: str
    cpu_core_count: int
    memory_size: float  # GiB
    cpu_architecture: str = ""  # X86 or ARM
    nvme_support: str = "unsupported"  # required, supported, unsupported
    gpu_amount: int = msgspec.field(default=0, name="GPUAmount")
    local_storage_amount: int | None = None


class _TypeList(msgspec.Struct, frozen=True, rename="pascal"):
    instance_type: tuple[InstanceType, ...] = ()


class InstanceTypes(msgspec.Struct, frozen=True, rename="pascal"):
    """DescribeInstanceTypes; `next_token` leads to the next page."""

    instance_types: _TypeList
    next_token: str | None = None


class _Resource(msgspec.Struct, frozen=True, rename="pascal"):
    value: str
    status: str = ""  # Available, SoldOut
    status_category: str = ""  # WithStock, ClosedWithStock, WithoutStock


class _ResourceList(msgspec.Struct, frozen=True, rename="pascal"):
    supported_resource: tuple[_Resource, ...] = ()


class _Available(msgspec.Struct, frozen=True, rename="pascal"):
    type: str = ""
    supported_resources: _ResourceList = _ResourceList()


class _AvailableList(msgspec.Struct, frozen=True, rename="pascal"):
    available_resource: tuple[_Available, ...] = ()


class _Zone(msgspec.Struct, frozen=True, rename="pascal"):
    zone_id: str = ""
    available_resources: _AvailableList = _AvailableList()


class _ZoneList(msgspec.Struct, frozen=True, rename="pascal"):
    available_zone: tuple[_Zone, ...] = ()


class Modifications(msgspec.Struct, frozen=True, rename="pascal"):
    """DescribeResourcesModification: what an instance may be changed to."""

    available_zones: _ZoneList = _ZoneList()

    @property
    def on_offer(self) -> dict[str, str]:
        """Type → stock category, of what can be had now. An older answer says `available` and no category."""
        return {
            resource.value: resource.status_category
            for zone in self.available_zones.available_zone
            for kind in zone.available_resources.available_resource
            for resource in kind.supported_resources.supported_resource
            if resource.status.lower() == "available" and resource.status_category != "WithoutStock"
        }


class Invoked(msgspec.Struct, frozen=True, rename="pascal"):
    """RunCommand: the number of the invocation."""

    invoke_id: str


class _Result(msgspec.Struct, frozen=True, rename="pascal"):
    invocation_status: str = ""  # Pending, Running, Success (it ended with 0), Failed, Timeout, ...
    error_code: str = ""
    output: str = ""  # base64


class _ResultList(msgspec.Struct, frozen=True, rename="pascal"):
    invocation_result: tuple[_Result, ...] = ()


class _Invocation(msgspec.Struct, frozen=True, rename="pascal"):
    invocation_results: _ResultList = _ResultList()


class InvocationResults(msgspec.Struct, frozen=True, rename="pascal"):
    """DescribeInvocationResults: what a command printed."""

    invocation: _Invocation = _Invocation()

    @property
    def first(self) -> _Result | None:
        """The result on the one instance that was asked."""
        return next(iter(self.invocation.invocation_results.invocation_result), None)
