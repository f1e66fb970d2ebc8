# SPDX-License-Identifier: GPL-2.0-or-later
"""What to type on each kind of host: stop the machine, take the device off, start it again."""

import re
from collections.abc import Callable

import msgspec

from ejectable.remedies.commands import paste
from ejectable.remedies.detach.attachments import Attachment
from ejectable.remedies.ecs import aliyun_cli

__all__ = ["Place", "Recipe", "recipe"]


class Place(msgspec.Struct, frozen=True):
    """Where the machine runs, as far as known: the ids that its host has for it. `nic` is the card's id there."""

    cloud: str | None
    virtualization: str | None = None
    instance: str | None = None
    region: str | None = None
    uuid: str | None = None  # of the firmware, which libvirt and OpenStack know it by
    nic: str | None = None
    disk: str | None = None  # the disk's id, where it was given


class Recipe(msgspec.Struct, frozen=True):
    """Commands in their order, and what has to be known of them."""

    host: str  # in words
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()


def recipe(place: Place, one: Attachment) -> Recipe:
    """The commands for a device on a host; words in capitals stand for what is not known from inside."""
    makers: dict[str, Callable[[Place, Attachment], Recipe]] = {
        "alibaba": _ecs,
        "openstack": _openstack,
        "gcp": _gcp,
        "aws": _aws,
        "azure": _azure,
    }
    if place.cloud in makers:
        return makers[place.cloud](place, one)
    if place.cloud is not None:
        return Recipe(
            place.cloud,
            (),
            ("Stop the machine in the console of its cloud, detach the device there, and start it again.",),
        )
    return _libvirt(place, one)


def _ecs(place: Place, one: Attachment) -> Recipe:
    region, instance = place.region or aliyun_cli.ANY_REGION, place.instance or aliyun_cli.ANY_INSTANCE
    stop, start = aliyun_cli.stop(region, instance), aliyun_cli.start(region, instance)
    if one.device.kind == "nic":
        nic = place.nic or "NETWORK_INTERFACE_ID"
        notes = ["Only a secondary network interface can be detached."]
        if place.nic is None:
            which = f" (its MAC address is {one.mac})" if one.mac else ""
            notes.append(f"NETWORK_INTERFACE_ID: {aliyun_cli.nics(region, instance)}{which}")
        return Recipe("Alibaba Cloud ECS", (*stop, aliyun_cli.detach_nic(region, instance, nic), *start), tuple(notes))
    disk, note = _ecs_disk(place, one)
    notes = [note or f"DISK_ID: {aliyun_cli.disks(region, instance)}"]
    return Recipe("Alibaba Cloud ECS", (*stop, aliyun_cli.detach_disk(region, instance, disk), *start), tuple(notes))


def _ecs_disk(place: Place, one: Attachment) -> tuple[str, str]:
    """The disk's id, and how it is known: `d-` and the serial ("Query the serial number of a disk")."""
    if place.disk:
        return place.disk, "The disk is the one that was named."
    if one.serial and re.fullmatch(r"[a-z0-9]{20}", one.serial):
        return f"d-{one.serial}", f"The serial of {one.node}, {one.serial}, is what follows `d-` in the disk's id."
    return "DISK_ID", ""


def _openstack(place: Place, one: Attachment) -> Recipe:
    server = place.instance or place.uuid or "SERVER"
    stop, start = ["openstack", "server", "stop", server], ["openstack", "server", "start", server]
    if one.device.kind == "nic":
        take = ["openstack", "server", "remove", "port", server, "PORT"]
        note = f"PORT: the port with the MAC address {one.mac}." if one.mac else "PORT: `openstack port list` shows it."
    else:
        volume = place.disk or "VOLUME"
        take = ["openstack", "server", "remove", "volume", server, volume]
        # Nova gives a disk the volume's id as its serial; of a serial, virtio-blk carries 20 bytes.
        note = (
            f"VOLUME: the one whose id begins with {one.serial} (it is the serial of {one.node})."
            if one.serial
            else "VOLUME: `openstack server show` lists the volumes."
        )
    return Recipe("OpenStack", (paste(stop), paste(take), paste(start)), (note,))


def _gcp(place: Place, one: Attachment) -> Recipe:
    where = [place.instance or "INSTANCE", f"--zone={place.region or 'ZONE'}"]
    lines = [["gcloud", "compute", "instances", "stop", *where]]
    if one.device.kind == "nic":
        note = "A network interface of an instance stays as long as the instance: make another one without it."
        return Recipe("Google Compute Engine", (), (note,))
    lines.append(["gcloud", "compute", "instances", "detach-disk", *where, f"--disk={place.disk or 'DISK'}"])
    lines.append(["gcloud", "compute", "instances", "start", *where])
    note = "DISK: `gcloud compute instances describe` lists the disks; /dev/disk/by-id/google-* has their device names."
    return Recipe("Google Compute Engine", tuple(paste(line) for line in lines), (note,))


def _aws(place: Place, one: Attachment) -> Recipe:
    instance = ["--instance-ids", place.instance or "INSTANCE_ID"]
    take = (
        ["aws", "ec2", "detach-network-interface", "--attachment-id", "ATTACHMENT_ID"]
        if one.device.kind == "nic"
        else ["aws", "ec2", "detach-volume", "--volume-id", place.disk or "VOLUME_ID"]
    )
    lines = (
        ["aws", "ec2", "stop-instances", *instance],
        ["aws", "ec2", "wait", "instance-stopped", *instance],
        take,
        ["aws", "ec2", "start-instances", *instance],
    )
    return Recipe("Amazon EC2", tuple(paste(line) for line in lines), ("EC2 itself shows NVMe and ENA, not virtio.",))


def _azure(place: Place, one: Attachment) -> Recipe:
    machine = place.instance or "VM"
    group = ["--resource-group", "RESOURCE_GROUP"]
    take = (
        ["az", "vm", "nic", "remove", *group, "--vm-name", machine, "--nics", "NIC"]
        if one.device.kind == "nic"
        else ["az", "vm", "disk", "detach", *group, "--vm-name", machine, "--name", place.disk or "DISK"]
    )
    lines = (
        ["az", "vm", "deallocate", *group, "--name", machine],
        take,
        ["az", "vm", "start", *group, "--name", machine],
    )
    return Recipe("Azure", tuple(paste(line) for line in lines), ("Azure itself shows Hyper-V devices, not virtio.",))


def _libvirt(place: Place, one: Attachment) -> Recipe:
    domain = place.uuid or "DOMAIN"
    if one.device.kind == "nic":
        # The type is the one of the interface's definition; a MAC address tells which.
        take = ["virsh", "detach-interface", domain, "network", "--mac", one.mac or "MAC", "--config"]
        note = "`network` is the kind of the interface: `virsh domiflist` shows it (it may be `bridge`)."
        proxmox = "On Proxmox VE: qm shutdown ID && qm set ID --delete netN && qm start ID"
    else:
        take = ["virsh", "detach-disk", domain, one.node or "TARGET", "--config"]
        serial = f", and the serial {one.serial}" if one.serial else ""
        note = (
            f"libvirt's target is often called as the guest's node is, but need not: `virsh dumpxml` shows it{serial}."
        )
        proxmox = "On Proxmox VE: qm shutdown ID && qm set ID --delete virtioN && qm start ID"
    wait = f"until virsh domstate {domain} | grep -q 'shut off'; do sleep 2; done"
    lines = (paste(["virsh", "shutdown", domain]), wait, paste(take), paste(["virsh", "start", domain]))
    return Recipe("libvirt", lines, (note, proxmox))
