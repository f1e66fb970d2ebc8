# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the list of devices is all there is: each thing about it that was not seen is a doubt.

On the live host sysfs itself is the list. A tree is a copy that somebody made, and many ways of copying lose what the
list is made of: the links (rsync without -l, zip, `find -type f`), what they lead to, or whole folders. There the two
places that list a device must agree: its bus (/sys/bus/NAME/devices, links) and the tree of devices (/sys/devices).
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from ejectable.host.other_buses import OTHER_BUSES
from ejectable.host.pci import PCI_ADDRESS
from ejectable.host.root import Root
from ejectable.model import Doubt, DoubtKind

__all__ = ["CAPTURE", "Coverage", "coverage", "reason"]

BUSES = "/sys/bus"
DEVICES = "/sys/devices"
VIRTIO = re.compile(r"virtio\d{1,9}")
NAMES = {"pci": PCI_ADDRESS, **OTHER_BUSES}  # bus → what its devices are called
MOST_NAMES = 1 << 17
MOST_SHOWN = 3  # doubts of one kind: one of a hundred links that dangle tells as much as all
CAPTURE = "Capture it with its links (`cp -a`)"


class Coverage(msgspec.Struct, frozen=True):
    """What was not seen of the buses that virtio devices are on: nothing where the lists are whole.

    `below` are the virtio devices in the tree of devices of a captured tree, name → path, whatever their bus lists.
    """

    doubts: tuple[Doubt, ...]
    below: Mapping[str, str] = {}


def coverage(root: Root) -> Coverage:
    """Whether the buses below `root` list all the devices that there are."""
    buses = root.list(BUSES) or ()
    if root.live:
        return Coverage(tuple(_live(root, buses)) if buses else (_no_sysfs(root),))
    tree = _Tree(root)
    if not buses:
        return Coverage((_no_sysfs(root),), tree.virtio)
    return Coverage((*_buses(root, buses, tree), *tree.doubts), tree.virtio)


def _no_sysfs(root: Root) -> Doubt:
    if (denied := reason(root, BUSES)) is DoubtKind.PERMISSION:
        return Doubt(denied, BUSES, f"{BUSES} may not be read by this user, so its devices could not be seen.")
    detail = "/sys shows no virtio bus and no other one: it is not mounted here, or not captured."
    hint = f" {CAPTURE}." if root.exists("/sys") and not root.live else ""
    return Doubt(DoubtKind.MISSING, BUSES, detail + hint)


def reason(root: Root, path: str) -> DoubtKind:
    """Why a path that was looked at gave nothing: a permission that was refused, or nothing there."""
    return DoubtKind.PERMISSION if path in root.denied else DoubtKind.MISSING


def _live(root: Root, buses: tuple[str, ...]) -> Iterator[Doubt]:
    # Sandboxes for containers (gVisor) show a few files that look like a sysfs. Every Linux has the platform bus
    # (drivers/base/platform.c).
    if "platform" not in buses:
        yield Doubt(DoubtKind.MISSING, BUSES, "/sys shows no platform bus, which every Linux has: it is no sysfs.")
    for bus in ("virtio", "pci", *OTHER_BUSES):
        if bus in buses and root.list(f"{BUSES}/{bus}/devices") is None:
            yield _unlisted(root, f"{BUSES}/{bus}/devices")


def _unlisted(root: Root, path: str) -> Doubt:
    kind = reason(root, path)
    why = "may not be read by this user" if kind is DoubtKind.PERMISSION else "is not there"
    return Doubt(kind, path, f"{path} {why}, so it is not known which devices there are. {CAPTURE}.")


class _Tree:
    """The tree of devices below /sys/devices of a captured tree, walked once; links are not followed."""

    def __init__(self, root: Root) -> None:
        self.buses: dict[str, set[str]] = {bus: set() for bus in NAMES}
        self.virtio: dict[str, str] = {}  # name → path
        self.there = False
        with root.recording() as recording:
            for folder, folders, names in root.walk(DEVICES, most=MOST_NAMES):
                self.there = self.there or bool(folders or names)
                self.virtio |= {name: f"{folder}/{name}" for name in folders if VIRTIO.fullmatch(name)}
                for bus, pattern in NAMES.items():
                    self.buses[bus] |= {name for name in folders if pattern.fullmatch(name)}
                folders[:] = [name for name in folders if name not in self.virtio]
        self.doubts = recording.doubts


def _buses(root: Root, buses: tuple[str, ...], tree: _Tree) -> Iterator[Doubt]:
    """Doubts about the buses of a captured tree, held against its tree of devices."""
    links = False
    for bus, known in {"virtio": set(tree.virtio), **tree.buses}.items():
        path = f"{BUSES}/{bus}/devices"
        names = root.list(path) if bus in buses else ()
        if names is None:
            yield _unlisted(root, path)
            names = ()
        broken = {name: doubt for name in names if (doubt := _entry(root, f"{path}/{name}", name))}
        links = links or len(broken) < len(names)
        yield from list(broken.values())[:MOST_SHOWN]
        if gone := sorted(known - set(names)):
            shown = ", ".join([*gone[:MOST_SHOWN], *(["..."] if len(gone) > MOST_SHOWN else [])])
            detail = f"{DEVICES} has devices that {path} does not list: {shown}. Part of the list is gone. {CAPTURE}."
            yield Doubt(DoubtKind.MISSING, path, detail)
    if not links and not any(_has_links(root, bus) for bus in buses):
        yield Doubt(DoubtKind.MISSING, BUSES, f"No bus lists a device by a link, as each does in /sys. {CAPTURE}.")
    elif not tree.there:
        yield Doubt(DoubtKind.MISSING, DEVICES, f"{DEVICES} is not there, which the buses are lists of. {CAPTURE}.")


def _entry(root: Root, path: str, name: str) -> Doubt | None:
    """What is wrong with an entry of a bus: each is a link to the folder of that name below /sys/devices."""
    led = root.link(path)
    if led is None:
        return Doubt(DoubtKind.MISSING, path, f"{path} is no link, as it is in /sys: links were followed. {CAPTURE}.")
    resolved = root.resolve(path)
    if resolved is None:
        if (denied := reason(root, path)) is DoubtKind.PERMISSION:
            return Doubt(denied, path, f"{path} leads to what may not be read by this user.")
        detail = f"{path} leads to nothing: the device itself was not captured. {CAPTURE}, /sys/devices too."
        return Doubt(DoubtKind.MISSING, path, detail)
    if led != name or not resolved.startswith(f"{DEVICES}/") or not root.is_dir(resolved):
        return Doubt(DoubtKind.CONTRADICTED, path, f"{path} leads to {resolved}, which is another device's place.")
    return None


def _has_links(root: Root, bus: str) -> bool:
    """Whether any of the first devices of a bus is a link that leads somewhere."""
    path = f"{BUSES}/{bus}/devices"
    return any(_entry(root, f"{path}/{name}", name) is None for name in (root.list(path) or ())[:4])
