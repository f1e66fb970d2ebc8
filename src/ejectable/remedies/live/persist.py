# SPDX-License-Identifier: GPL-2.0-or-later
"""What stays on the disk: the units that keep the mark honest and, with --persist, the module through DKMS.

Not modules-load.d: it is read before /var can be written to, and the mark must be on the disk before the module is in
the kernel. Without --persist the units live in /run and are gone with the boot.
"""

import re
from importlib import resources

from ejectable import __version__, host
from ejectable.errors import Missing
from ejectable.host.live_repair import AUTOINSTALL
from ejectable.remedies.changes import Changes
from ejectable.remedies.commands import which
from ejectable.remedies.live.target import HEADER, SOURCES, Target, source
from ejectable.remedies.live.toolchain import Compiler

__all__ = [
    "DKMS_NAME",
    "ask",
    "booted_by_systemd",
    "dkms_conf",
    "install_with_dkms",
    "mend",
    "mended",
    "start_units",
    "watch_this_boot",
]

GUARD = "/var/lib/ejectable/live-guard.sh"
SERVICE, SETTLED, TIMER = "ejectable-live.service", "ejectable-live-settled.service", "ejectable-live-settled.timer"
DKMS_NAME = "ejectable-live"
SYSTEMCTL_S, DKMS_S = 90.0, 600.0
DKMS_HINT = "Install dkms (Debian, Ubuntu: `apt-get install dkms`; Red Hat: `dnf install dkms` from EPEL)."


def booted_by_systemd(root: host.Root) -> bool:
    """As sd_booted(3) tells."""
    return root.is_dir("/run/systemd/system")


def ask(root: host.Root) -> None:
    """Raises `Missing` for what --persist needs and this machine does not have."""
    if which("dkms") is None:
        raise Missing("`dkms` was not found, which --persist builds with.", hint=DKMS_HINT)
    if not booted_by_systemd(root):
        raise Missing(
            "This machine was not booted by systemd, whose units --persist needs.",
            hint="Load it without --persist, after each boot.",
        )


def watch_this_boot(root: host.Root, release: str, changes: Changes, *, lasting: bool) -> bool:
    """Units that take the mark away in good time; `lasting`: also load the module at each boot of this kernel.

    Whether that was possible: without systemd nobody takes the mark away.
    """
    if not booted_by_systemd(root):
        return False
    folder = "/etc/systemd/system" if lasting else "/run/systemd/system"
    reload = ["systemctl", "daemon-reload"]
    # First here, so that it comes last when the units are taken away again.
    with changes.doing(reload, undo=reload, what="told systemd of units that come and go"):
        pass
    changes.write(GUARD, _boot_file("guard.sh"), mode=0o755)
    for unit in (SERVICE, SETTLED, TIMER):
        changes.write(f"{folder}/{unit}", _boot_file(unit).replace(b"@RELEASE@", release.encode()))
    changes.run(reload, undo=[], what="made systemd read the units", timeout_s=SYSTEMCTL_S)
    if lasting:
        changes.run(
            ["systemctl", "enable", SERVICE, TIMER],
            undo=["systemctl", "disable", SERVICE, TIMER],
            what=f"enabled {SERVICE} for each boot of {release}",
            timeout_s=SYSTEMCTL_S,
            while_there=f"{folder}/{SERVICE}",
        )
    return True


def start_units(changes: Changes) -> None:
    """Start them, once the module is loaded."""
    changes.run(
        ["systemctl", "start", SERVICE, TIMER],
        undo=["systemctl", "stop", SERVICE, TIMER],
        what=f"started {SERVICE} and {TIMER}",
        timeout_s=SYSTEMCTL_S,
    )


def install_with_dkms(target: Target, compiler: Compiler, changes: Changes) -> None:
    """Put the sources below /usr/src, and let DKMS build and install them for this kernel alone."""
    folder = f"/usr/src/{DKMS_NAME}-{__version__}"
    for name in SOURCES:
        changes.write(f"{folder}/{name}", source(name))
    changes.write(f"{folder}/{HEADER}", target.header())
    changes.write(f"{folder}/dkms.conf", dkms_conf(target, compiler))
    module = f"{DKMS_NAME}/{__version__}"
    remove = ["dkms", "remove", module, "--all"]
    added = f"/var/lib/dkms/{module}"
    changes.run(
        ["dkms", "add", module], undo=remove, what=f"gave {module} to DKMS", timeout_s=DKMS_S, while_there=added
    )
    changes.run(
        ["dkms", "install", module, "-k", target.release],
        undo=[],
        what=f"built and installed {module} for {target.release}",
        timeout_s=DKMS_S,
        hint=f"{added}/build/make.log tells why.",
    )


def dkms_conf(target: Target, compiler: Compiler) -> bytes:
    """dkms.conf (dkms(8)) for one release and no other."""
    # dkms.conf is read by bash, and what stands here is matched by it as an extended regular expression.
    pattern = re.sub(r"([.+])", r"\\\1", target.release)
    if not re.fullmatch(r"[\w.+~-]+", target.release):
        raise Missing(f"The release {target.release!r} cannot be written into dkms.conf.")
    text = source("dkms.conf").decode()
    for key, value in (("VERSION", __version__), ("VARIABLES", " ".join(compiler.variables)), ("PATTERN", pattern)):
        text = text.replace(f"@{key}@", value)
    return text.encode()


def mended(conf: bytes) -> bytes:
    """A dkms.conf of ours without the line that makes DKMS try each new kernel (see `host.live_repair`)."""
    return AUTOINSTALL.sub(b"", conf)


def mend(root: host.Root, changes: Changes) -> tuple[str, ...]:
    """Mend each configuration of ours that fails the next kernel's installation; the paths. Nothing undoes this."""
    paths = host.read_live_repair(root).faulty_dkms
    for path in paths:
        changes.adopt(path, mended(root.read(path) or b""))
    return paths


def _boot_file(name: str) -> bytes:
    return (resources.files("ejectable.remedies.live") / "boot" / name).read_bytes()
