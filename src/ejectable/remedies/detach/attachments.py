# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and network cards that could go: their nodes, what the host calls them, and who uses them."""

import re
from collections.abc import Iterable

import msgspec

from ejectable import host
from ejectable.model import Device

__all__ = ["Attachment", "attachments", "named"]

MAX_TEXT = 1 << 20
SYSTEM = ("/", "/boot", "/usr", "/boot/efi")
# What the mount table writes for a blank, a tab, a newline and a backslash: proc(5), /proc/pid/mountinfo.
ESCAPE = re.compile(r"\\([0-7]{3})")


class Attachment(msgspec.Struct, frozen=True):
    """One virtio device that a person knows by its node."""

    device: Device
    node: str | None  # vdb, eth1
    serial: str | None = None  # of a disk, as the host gave it: at most 20 bytes (virtio 1.3, section 5.2.6)
    mac: str | None = None  # of a network card
    used: tuple[str, ...] = ()  # what would miss it: "/data", "swap", "dm-0"
    in_fstab: bool = False
    own: str | None = None  # why the machine cannot do without it

    @property
    def called(self) -> str:
        """The name that a person knows it by."""
        return self.node or self.device.name


def attachments(root: host.Root, devices: Iterable[Device]) -> tuple[Attachment, ...]:
    """Disks and network cards among the devices, with what can be found out about each."""
    uses = _Uses.read(root)
    primary = _default_route(root)
    found = []
    for device in devices:
        node = device.nodes[0] if device.nodes else None
        if device.kind == "disk":
            found.append(_disk(root, device, node, uses))
        elif device.kind == "nic":
            mac = root.text(f"/sys/class/net/{node}/address", 64) if node else None
            own = "the default route goes through it" if node is not None and node == primary else None
            plain = mac if mac and re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac) else None
            found.append(Attachment(device, node, mac=plain, own=own))
    return tuple(found)


def named(found: Iterable[Attachment], wanted: str) -> Attachment | None:
    """The one that is called so: a node (`vdb`, `/dev/vdb1`, `eth1`), a virtio device, a PCI address, a serial, a MAC
    address, or the id that a cloud gives a disk with that serial (`d-...`, a volume's UUID).
    """
    name = wanted.removeprefix("/dev/").lower()
    for one in found:
        names = {one.node, one.device.name, one.device.address, one.serial, one.mac}
        if name in {each.lower() for each in names if each}:
            return one
        if one.node and one.device.kind == "disk" and re.fullmatch(rf"{re.escape(one.node)}p?\d{{1,3}}", name):
            return one
        # Of an id that is longer than a serial may be, the host gives the beginning.
        if one.serial and (name == f"d-{one.serial}" or (len(one.serial) == 20 and name.startswith(one.serial))):
            return one
    return None


class _Uses(msgspec.Struct, frozen=True):
    """Who uses block devices: (device, mount point), swaps, and the lines of fstab."""

    mounts: tuple[tuple[str, str], ...]
    swaps: tuple[str, ...]
    fstab: tuple[str, ...]

    @classmethod
    def read(cls, root: host.Root) -> "_Uses":
        """proc(5), fstab(5)."""
        swaps = (root.text("/proc/swaps", MAX_TEXT) or "").splitlines()[1:]
        fstab = (root.text("/etc/fstab", MAX_TEXT) or "").splitlines()
        return cls(
            tuple(_mounts(root)),
            tuple(line.split()[0] for line in swaps if line.split()),
            tuple(line for line in fstab if line.split() and not line.lstrip().startswith("#")),
        )


def _disk(root: host.Root, device: Device, node: str | None, uses: _Uses) -> Attachment:
    if node is None:
        return Attachment(device, None)
    serial = root.text(f"/sys/block/{node}/serial", 64)
    if serial is None or not re.fullmatch(r"[\w.:@-]{1,20}", serial):
        serial = None
    part = re.compile(rf"/dev/{re.escape(node)}(p?\d{{1,3}})?")
    used = [target for source, target in uses.mounts if part.fullmatch(source)]
    used += ["swap"] if any(part.fullmatch(source) for source in uses.swaps) else []
    names = [name for name in root.list(f"/sys/block/{node}") or () if part.fullmatch(f"/dev/{name}")]
    for name in (node, *(f"{node}/{each}" for each in names)):
        used += root.list(f"/sys/block/{name}/holders") or ()
    system = next((target for target in used if target in SYSTEM), None)
    return Attachment(
        device,
        node,
        serial=serial,
        used=tuple(dict.fromkeys(used)),
        in_fstab=any(
            part.fullmatch(line.split()[0]) or (serial is not None and f"virtio-{serial}" in line.split()[0])
            for line in uses.fstab
        ),
        own=f"it holds {system}" if system else None,
    )


def _mounts(root: host.Root) -> list[tuple[str, str]]:
    """(source, mount point) of what is mounted."""
    text = root.text("/proc/1/mountinfo", MAX_TEXT) or root.text("/proc/self/mountinfo", MAX_TEXT)
    found = []
    for line in (text or "").splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) > 4 and len(after.split()) > 1:
            found.append((after.split()[1], _unescaped(before.split()[4])))
    if not found:
        words = [line.split() for line in (root.text("/proc/mounts", MAX_TEXT) or "").splitlines()]
        found = [(line[0], _unescaped(line[1])) for line in words if len(line) > 1]
    return found


def _unescaped(text: str) -> str:
    return ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _default_route(root: host.Root) -> str | None:
    """The interface of the default route: destination 0 in /proc/net/route (net/ipv4/fib_trie.c)."""
    for line in (root.text("/proc/net/route", MAX_TEXT) or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 1 and fields[1] == "00000000":
            return fields[0]
    return None
