# SPDX-License-Identifier: GPL-2.0-or-later
"""While a machine stays affected: a clean panic and a restart, rather than a hung kernel that may corrupt data."""

import re
import shlex
from typing import ClassVar, Literal

from ejectable.errors import Missing
from ejectable.model import Applied, Remedy
from ejectable.remedies.changes import Changes
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import Reach

__all__ = ["DROP_IN", "PanicPolicy"]

DROP_IN = "/etc/sysctl.d/90-ejectable-panic.conf"
REBOOT_AFTER_S = 10
SYSCTL = "/proc/sys/kernel"
# sysctl.d(5): of files with the same name the first folder wins; of settings, the file whose name comes last.
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
SETTING = re.compile(r"\s{0,99}+-?\s{0,99}+kernel[./](panic_on_oops|panic)\s{0,99}+=\s{0,99}+(-?\d{1,9})\s{0,99}+$")


class PanicPolicy(Remediation):
    """`kernel.panic_on_oops=1` and `kernel.panic`, now and after every boot; and a word on kdump."""

    name: ClassVar[str] = "panic-policy"
    durable: ClassVar[bool] = False
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "tree"
    reach: ClassVar[Reach] = Reach(files=[re.escape(DROP_IN)], values=[f"{SYSCTL}/panic_on_oops", f"{SYSCTL}/panic"])

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Possible wherever an Oops would be survived; done where both settings hold now and after a boot."""
        del request
        policy = situation.facts.policy
        places = tuple(f"{place}: {name} = {value}" for name, value, place in _settings(situation))
        kdump = {True: "kdump is loaded: a panic saves a dump first.", False: _KDUMP, None: ""}[policy.kdump]
        details = tuple(filter(None, (*places, kdump)))
        running = situation.root.live and policy.panic_on_oops is not None
        now = running and bool(policy.panic_on_oops) and policy.panic not in (0, None)
        if (now or not running) and _lasting(situation):
            when = "now and after a boot" if running else "after a boot, by what is set on disk"
            why = f"An Oops panics this machine, and it restarts: {when}."
            return Remedy(self.name, "done", why, (), verified=True, cost="nothing", details=details)
        if not situation.needed:
            return self.impossible("Nothing here would crash: there is no reason to change it.", details=details)
        if now:
            why = "An Oops panics this machine, but only until the next boot: nothing sets it on disk."
        elif running and policy.panic_on_oops and policy.panic == 0:
            why = "An Oops panics this machine, and it stays down (kernel.panic=0): let it restart."
        else:
            why = (
                "While the danger is there: a kernel that limps on after an Oops has locks held for ever and may "
                "corrupt data. A panic and a restart are the smaller harm."
            )
        return Remedy(
            self.name,
            "possible",
            why,
            _commands(situation),
            verified=False,
            cost="nothing now; when it does Oops, the machine restarts at once",
            details=details,
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Write one drop-in file, and set both values in the running kernel."""
        del request
        changes.write(DROP_IN, _text(situation).encode())
        policy = situation.facts.policy
        live = situation.root.live and policy.panic_on_oops is not None
        if live:
            changes.set(f"{SYSCTL}/panic_on_oops", "1")
            if policy.panic in (0, None):
                changes.set(f"{SYSCTL}/panic", str(REBOOT_AFTER_S))
        seen = situation.again()
        after = seen.facts.policy if live else None
        if not _lasting(seen):
            hidden = [f"{place} sets {name} = {value}" for name, value, place in _settings(seen) if place != DROP_IN]
            raise Missing(
                f"{DROP_IN} would not hold after a boot: {'; '.join(hidden) or 'a later setting overrides it'}.",
                hint="Change that setting first.",
            )
        if after is not None and not (after.panic_on_oops and after.panic != 0):
            raise Missing("The running kernel did not take the new values.", hint="Is /proc/sys writable here?")
        why = "The running kernel has them" if after is not None else "Nothing runs in this tree"
        return Applied(
            self.name,
            tuple(changes.done),
            verified=True,
            why=f"{why}; of what is set on disk, {DROP_IN} decides after a boot.",
            next_steps=(_KDUMP,) if after is not None and after.kdump is False else (),
            undo="ejectable fix panic-policy --undo",
        )


_KDUMP = (
    "No crash kernel is loaded: with kdump a panic saves a dump first (Debian, Ubuntu: `apt-get install kdump-tools`; "
    "Red Hat, SUSE: `systemctl enable --now kdump`)."
)


def _text(situation: Situation) -> str:
    return (
        "# Written by `ejectable fix panic-policy --apply`; `ejectable fix panic-policy --undo` removes it.\n"
        "# An Oops while a device is taken away becomes a panic and a restart.\n"
        "kernel.panic_on_oops = 1\n"
        f"kernel.panic = {_seconds(situation)}\n"
    )


def _commands(situation: Situation) -> tuple[str, ...]:
    """The same with the system's own tools. In a tree they could follow its links to this machine's own files."""
    if not situation.root.live:
        return (
            shlex.join(["sudo", "ejectable", "fix", "panic-policy", "--apply", "--root", str(situation.root.path)]),
        )
    lines = rf"kernel.panic_on_oops = 1\nkernel.panic = {_seconds(situation)}\n"
    return f"printf '{lines}' | sudo tee {DROP_IN}", f"sudo sysctl -p {DROP_IN}"


def _seconds(situation: Situation) -> int:
    """What the machine has, where it restarts at all."""
    return situation.facts.policy.panic or REBOOT_AFTER_S


def _lasting(situation: Situation) -> bool:
    """Whether the next boot will have both settings."""
    found = {name: value for name, value, _ in _settings(situation)}
    return found.get("panic_on_oops") == "1" and found.get("panic", "0") != "0"


def _settings(situation: Situation) -> tuple[tuple[str, str, str], ...]:
    """(name, value, place) of what is set at boot, the last one of a name deciding.

    The kernel's command line is read first (`oops=panic`, `panic=N`: Documentation/admin-guide/kernel-parameters.txt),
    then the files of sysctl.d(5) in the order of their names, then /etc/sysctl.conf where it is no part of them.
    """
    root = situation.root
    found: list[tuple[str, str, str]] = []
    running = situation.facts.running
    for word in ((running.command_line if running else None) or "").split():
        if word == "oops=panic":
            found.append(("panic_on_oops", "1", "kernel command line"))
        elif match := re.fullmatch(r"panic=(-?\d{1,9})", word):
            found.append(("panic", match[1], "kernel command line"))
    chosen: dict[str, str] = {}
    for folder in reversed(FOLDERS):
        chosen |= {name: f"{folder}/{name}" for name in root.list(folder) or () if name.endswith(".conf")}
    paths = [chosen[name] for name in sorted(chosen)]
    linked = any(root.resolve(path) == "/etc/sysctl.conf" for path in paths)
    for path in [*paths, *([] if linked else ["/etc/sysctl.conf"])]:
        text = root.text(path, 1 << 20) or ""
        found += [(match[1], match[2], path) for match in map(SETTING.match, text.splitlines()) if match]
    return tuple(found)
