# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of Alibaba Cloud's own command line tool (`aliyun`), as a person can paste them."""

from ejectable.remedies.commands import paste

__all__ = [
    "ANY_INSTANCE",
    "ANY_REGION",
    "ANY_TYPE",
    "change_type",
    "detach_disk",
    "detach_nic",
    "disks",
    "dry_run",
    "nics",
    "on_offer",
    "start",
    "stop",
    "wait",
]

# Where they are not known; they stand for themselves.
ANY_INSTANCE = "INSTANCE_ID"
ANY_REGION = "REGION_ID"
ANY_TYPE = "INSTANCE_TYPE"
WAIT_S = 600
EVERY_S = 10


def _line(region: str, action: str, *words: str) -> str:
    return paste(["aliyun", "ecs", action, "--region", region, *words])


def stop(region: str, instance: str) -> tuple[str, str]:
    """Stop, and wait for it. The capacity is kept (and paid for): one that was given back may not be there again."""
    return (
        _line(region, "StopInstance", "--InstanceId", instance, "--StoppedMode", "KeepCharging"),
        wait(region, instance, "Stopped"),
    )


def start(region: str, instance: str) -> tuple[str, str]:
    """Start, and wait for it."""
    return _line(region, "StartInstance", "--InstanceId", instance), wait(region, instance, "Running")


def wait(region: str, instance: str, state: str) -> str:
    """Wait until the instance is in a state."""
    waiter = ("expr=Instances.Instance[0].Status", f"to={state}", f"timeout={WAIT_S}", f"interval={EVERY_S}")
    which = ("--RegionId", region, "--InstanceIds", f'["{instance}"]')
    return _line(region, "DescribeInstances", *which, "--waiter", *waiter)


def change_type(region: str, instance: str, name: str, *, subscription: bool, across: bool = False) -> str:
    """Change the type of a stopped instance. A subscription's order is paid at once, as the API does by default."""
    if subscription:
        words = ["--RegionId", region, "--InstanceId", instance, "--InstanceType", name]
        return _line(region, "ModifyPrepayInstanceSpec", *words, *(["--MigrateAcrossZone", "true"] if across else []))
    words = ["--InstanceId", instance, "--InstanceType", name]
    return _line(region, "ModifyInstanceSpec", *words, *(["--AllowMigrateAcrossZone", "true"] if across else []))


def dry_run(region: str, instance: str, name: str, *, across: bool = False) -> str:
    """Ask whether the change would be carried out: it answers with the error DryRunOperation if so."""
    return f"{change_type(region, instance, name, subscription=False, across=across)} --DryRun true"


def on_offer(region: str, instance: str) -> str:
    """List the types that the instance may be changed to."""
    which = ("--RegionId", region, "--ResourceId", instance, "--DestinationResource", "InstanceType")
    return _line(region, "DescribeResourcesModification", *which)


def disks(region: str, instance: str) -> str:
    """List the disks of the instance."""
    return _line(region, "DescribeDisks", "--RegionId", region, "--InstanceId", instance)


def nics(region: str, instance: str) -> str:
    """List the network interfaces of the instance."""
    return _line(region, "DescribeNetworkInterfaces", "--RegionId", region, "--InstanceId", instance)


def detach_disk(region: str, instance: str, disk: str) -> str:
    """Take a data disk off; it is kept."""
    return _line(region, "DetachDisk", "--InstanceId", instance, "--DiskId", disk)


def detach_nic(region: str, instance: str, nic: str) -> str:
    """Take a secondary network interface off; it is kept."""
    which = ("--RegionId", region, "--InstanceId", instance, "--NetworkInterfaceId", nic)
    return _line(region, "DetachNetworkInterface", *which)
