# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that are legacy only because `virtio_pci.force_legacy` is set: take it away, wherever it is set."""

import datetime as dt
import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar, Literal

from ejectable.errors import BadInput, Missing, WrongUsage
from ejectable.model import Applied, Device, Remedy
from ejectable.remedies.boot_images import initramfs_program, initramfs_that_asks, menu_program
from ejectable.remedies.changes import Changes
from ejectable.remedies.commands import paste, which
from ejectable.remedies.legacy_places import (
    FILES,
    Place,
    command_lines,
    edited,
    files_that_might,
    find_places,
    in_unified_images,
    override_of,
)
from ejectable.remedies.records import Records
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import Reach, RenewInitramfs, RenewMenu
from ejectable.remedies.transitional import can_be_modern

__all__ = ["ForceLegacy"]

REBOOT = "a reboot"
SED_WORD = r"s/[ \t]*virtio[-_]pci\.force[-_]legacy(=[[:alnum:]]*)?//g"
SED_OPTION = r"/^[ \t]*options[ \t]+virtio[-_]pci/s/[ \t]+force[-_]legacy(=[[:alnum:]]*)?//g"


class ForceLegacy(Remediation):
    """Remove the parameter from the command line's sources and from modprobe.d."""

    name: ClassVar[str] = "force-legacy"
    durable: ClassVar[bool] = True
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "tree"
    reach: ClassVar[Reach] = Reach(RenewMenu, RenewInitramfs, files=FILES)

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Possible where a place asks for it and a device would be modern without it."""
        del request
        places = _effective(situation, find_places(situation.root))
        details = [f"{place.path}, line {place.line}, asks for it." for place in places]
        running = _is_running(situation)
        if not places:
            return self._without_places(situation, running=running)
        said, hopeless = _about_devices(situation)
        details += said
        by_hand = [place for place in places if place.kind == "by-hand"]
        if hopeless:
            why = "force_legacy is set, but every device that is driven as legacy here is purely legacy: no help."
            return self.impossible(why, details=details)
        if by_hand:
            return self.impossible(_script(by_hand[0]), details=details)
        why = (
            f"force_legacy is set ({', '.join(dict.fromkeys(place.path for place in places))}): devices that could be "
            "modern are driven as legacy. Without it they are modern after a boot."
        )
        if not running:
            why += " The running kernel does not have it set; the next boot would."
        return Remedy(
            self.name,
            "possible",
            why,
            tuple(_commands(situation, places)),
            verified=False,
            cost=REBOOT,
            details=tuple(details),
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Edit every place, renew what is made of them, and look again whether any is left."""
        del request
        root = situation.root
        places = _effective(situation, find_places(root))
        for place in places:
            if place.kind == "by-hand":
                raise Missing(_script(place), hint="Take it away there by hand, then run this again.")
        if not places:
            line = self._without_places(situation, running=_is_running(situation))
            if line.state == "done":
                return Applied(self.name, (), verified=True, why=line.why, reboot=True)
            raise WrongUsage(line.why)
        menu, images, asking = self._programs(situation, places)
        diffs: list[str] = []
        with ExitStack() as stack:
            if menu:
                stack.enter_context(_renewing(changes, RenewMenu()))
            if images:
                stack.enter_context(_renewing(changes, RenewInitramfs()))
            for place in places:
                if place.kind == "menu" and menu:
                    continue
                text = edited(place.text, place.kind, place.path)
                changes.write(override_of(place.path), text.encode("utf-8", "surrogateescape"))
                diffs += _diff(place, text)
        left = _effective(situation, find_places(root))
        if left:
            raise BadInput(
                f"line {left[0].line} still asks for force_legacy: something sets it that is not known here",
                path=left[0].path,
                hint="Take it away there by hand, then run this again.",
            )
        verified, why, steps = self._look_again(situation, asking)
        return Applied(
            self.name,
            tuple(changes.done),
            verified=verified,
            why=why,
            reboot=True,
            diff=tuple(diffs),
            next_steps=tuple(steps),
            undo="ejectable fix force-legacy --undo",
        )

    def _programs(
        self, situation: Situation, places: Sequence[Place]
    ) -> tuple[list[str] | None, list[str] | None, tuple[str, ...]]:
        """What has to be run for the menu and for the initramfs, and the images that ask for it now.

        In a tree nothing is run: its programs are somebody else's. There the menu is edited in place.
        """
        root = situation.root
        asking: tuple[str, ...] = ()
        if any(place.kind == "modprobe" for place in places):
            situation.tell("reading the initramfs")
            found, unread = initramfs_that_asks(root, situation.limits)
            asking = (*found, *unread)
        if not root.live:
            return None, None, asking
        grub = any(place.kind == "menu" or place.path.startswith("/etc/default/grub") for place in places)
        images = initramfs_program() if asking else None
        if asking and images is None:
            raise Missing(
                f"{asking[0]} has to be made anew, and no program for it was found.",
                hint="Install initramfs-tools, dracut or mkinitcpio, or whatever made it.",
            )
        return (menu_program(root) if grub else None), images, asking

    def _look_again(self, situation: Situation, asked: Sequence[str]) -> tuple[bool, str, list[str]]:
        """Whether the next boot is without it, as far as the disk tells, and what is left to do."""
        root = situation.root
        unified = in_unified_images(root)
        if unified:
            step = (
                f"Build {unified[0]} anew (kernel-install add, ukify or dracut --uefi): it has the parameter built in."
            )
            return False, f"No setting asks for it any more, but {unified[0]} has it built in.", [step]
        if asked:
            asking, unread = initramfs_that_asks(root, situation.limits)
            if asking and root.live:
                raise Missing(f"{asking[0]} still holds the option after it was made anew.", hint="Make it by hand.")
            if asking or unread:
                step = f"Make the initramfs anew, in the system itself: {_hint_for_images(situation)}"
                state = "still holds the option" if asking else "could not be read"
                return False, f"No setting asks for it any more, but {(asking + unread)[0]} {state}.", [step]
        why = "Read again, no place asks for it any more."
        if _is_running(situation):
            why += " The running kernel still has it until it is booted anew."
        return True, why, []

    def _without_places(self, situation: Situation, *, running: bool) -> Remedy:
        if not running and not _was_seen(situation):
            return self.impossible(
                "Whether force_legacy is set here is not known: neither a command line nor a setting could be read."
            )
        if not running:
            return self.impossible("force_legacy is not set here: what is driven as legacy is legacy.")
        if _was_applied_since_boot(situation):
            why = (
                "No place asks for it any more, but the running kernel still has it: until you reboot, its devices "
                "are driven as legacy."
            )
            return Remedy(self.name, "done", why, (), verified=True, cost=REBOOT)
        why = (
            "The running kernel has force_legacy set, but no place that is known here asks for it: a boot loader of "
            "another kind gives it, the hypervisor does, or it was typed when the machine was booted."
        )
        return self.impossible(why, commands=("cat /proc/cmdline",) if situation.root.live else ())


@contextmanager
def _renewing(changes: Changes, step: RenewMenu | RenewInitramfs) -> Iterator[None]:
    """Make it anew after what the block changes. Recorded first, it is made anew after the files are back as well."""
    with changes.step(step):
        yield
        step.renew(changes.root)


def _effective(situation: Situation, places: Sequence[Place]) -> tuple[Place, ...]:
    """Without the options of modprobe.d where the driver is built in: it reads the command line only."""
    if not any("modprobe.d" in place.path for place in places):
        return tuple(places)
    report = situation.running_kernel.report
    built_in = report is not None and report.virtio_pci == "builtin"
    return tuple(place for place in places if not (built_in and "/modprobe.d/" in place.path))


def _is_running(situation: Situation) -> bool:
    running = situation.facts.running
    if running is None:
        return False
    return bool(running.force_legacy) or command_lines(running.command_line or "")


def _was_seen(situation: Situation) -> bool:
    """Whether anything was read that would ask for it: a command line, a boot loader's file, a file of modprobe.d."""
    running = situation.facts.running
    return bool(running and running.command_line) or bool(files_that_might(situation.root))


def _about_devices(situation: Situation) -> tuple[list[str], bool]:
    """What is to be said of the legacy devices, and whether it is certain that none of them could be modern."""
    legacy = [one for one in situation.facts.devices or () if one.transport == "pci" and one.mode == "legacy"]
    said: list[str] = []
    answers: list[bool | None] = []
    for device in legacy:
        answer = can_be_modern(situation.root, device.address or "")
        answers.append(answer)
        said.append(_device(device, answer))
    return said, bool(answers) and all(answer is False for answer in answers)


def _device(device: Device, answer: bool | None) -> str:
    name = f"{device.name} ({device.kind}, {device.address})"
    if answer is None:
        return f"{name} may be transitional: only root may read the PCI capabilities that tell."
    return f"{name} is {'transitional: it would be modern' if answer else 'purely legacy: it stays as it is'}."


def _script(place: Place) -> str:
    where = f"{place.path}, line {place.line}"
    return f"{where}, asks for force_legacy: that is a program's own setting, to be edited by hand."


def _commands(situation: Situation, places: Sequence[Place]) -> list[str]:
    """The same with the system's own tools, for a person to paste."""
    if not situation.root.live:
        # Other tools would follow the tree's links, out of it and to this machine's own files.
        return [shlex.join(["sudo", "ejectable", "fix", "force-legacy", "--apply", "--root", str(situation.root.path)])]
    commands = ["sudo ejectable fix force-legacy --apply"]
    for path in dict.fromkeys(place.path for place in places if place.kind in ("command-line", "modprobe")):
        target = override_of(path)
        if target != path:
            commands.append(shlex.join(["sudo", "cp", path, target]))
        sed = SED_OPTION if "/modprobe.d/" in path else SED_WORD
        if path.startswith("/boot/loader/") and which("grubby"):
            grubby = "sudo grubby --update-kernel=ALL --remove-args=virtio_pci.force_legacy"
            commands += [] if grubby in commands else [grubby]
        else:
            commands.append(shlex.join(["sudo", "sed", "-i", "-E", sed, target]))
    kinds = {place.kind for place in places}
    if "menu" in kinds or any("/default/grub" in place.path for place in places):
        commands.append(f"sudo {paste(menu_program(situation.root) or ['update-grub'])}")
    if "modprobe" in kinds:
        commands.append(f"sudo {paste(initramfs_program() or ['update-initramfs', '-u', '-k', 'all'])}")
    return commands


def _hint_for_images(situation: Situation) -> str:
    prefix = "" if situation.root.live else f"chroot {shlex.quote(str(situation.root.path))} "
    return f"{prefix}update-initramfs -u -k all (Debian, Ubuntu) or {prefix}dracut --force --regenerate-all"


def _diff(place: Place, text: str) -> list[str]:
    before = place.text.splitlines()
    return list(difflib.unified_diff(before, text.splitlines(), place.path, override_of(place.path), lineterm="", n=1))


def _was_applied_since_boot(situation: Situation) -> bool:
    """Whether this remedy was carried out after the machine was booted last: its effect is then still to come."""
    done = [one.started for one in Records(situation.root).all() if (one.remedy, one.state) == ("force-legacy", "done")]
    match = re.search(r"^btime (\d{1,11})$", situation.root.text("/proc/stat", 1 << 20) or "", re.MULTILINE)
    booted = dt.datetime.fromtimestamp(int(match[1]), dt.UTC) if match else None
    return any(booted is None or dt.datetime.fromisoformat(started) >= booted for started in done)
