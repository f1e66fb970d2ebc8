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
from ejectable.remedies.commands import run_checked, which
from ejectable.remedies.live.target import HEADER, SOURCES, Target, source
from ejectable.remedies.live.toolchain import Compiler
from ejectable.remedies.steps import AddToDkms, EnableUnits, ReloadUnits, StartUnits
from ejectable.remedies.steps.live import DKMS_NAME, SERVICE, TIMER

__all__ = [
    "DKMS_NAME",
    "FILES",
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
SETTLED = "ejectable-live-settled.service"
# Every file that `fix live` writes, as regular expressions of whole paths.
FILES = (
    re.escape(GUARD),
    r"/(?:etc|run)/systemd/system/ejectable-live(?:-settled)?\.(?:service|timer)",
    rf"/usr/src/{DKMS_NAME}-[0-9][\w.+-]*/(?:{'|'.join(map(re.escape, (*SOURCES, HEADER, 'dkms.conf')))})",
)
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
    # Recorded first, so that it comes last when the units are taken away again.
    with changes.step(ReloadUnits()):
        _write_units(folder, release, changes)
        run_checked(["systemctl", "daemon-reload"], timeout_s=SYSTEMCTL_S)
    if lasting:
        with changes.step(EnableUnits()):
            run_checked(["systemctl", "enable", SERVICE, TIMER], timeout_s=SYSTEMCTL_S)
    return True


def _write_units(folder: str, release: str, changes: Changes) -> None:
    changes.write(GUARD, _boot_file("guard.sh"), mode=0o755)
    for unit in (SERVICE, SETTLED, TIMER):
        changes.write(f"{folder}/{unit}", _boot_file(unit).replace(b"@RELEASE@", release.encode()))


def start_units(changes: Changes) -> None:
    """Start them, once the module is loaded."""
    with changes.step(StartUnits()):
        run_checked(["systemctl", "start", SERVICE, TIMER], timeout_s=SYSTEMCTL_S)


def install_with_dkms(target: Target, compiler: Compiler, changes: Changes) -> None:
    """Put the sources below /usr/src, and let DKMS build and install them for this kernel alone."""
    folder = f"/usr/src/{DKMS_NAME}-{__version__}"
    for name in SOURCES:
        changes.write(f"{folder}/{name}", source(name))
    changes.write(f"{folder}/{HEADER}", target.header())
    changes.write(f"{folder}/dkms.conf", dkms_conf(target, compiler))
    module = f"{DKMS_NAME}/{__version__}"
    with changes.step(AddToDkms(__version__)):
        run_checked(["dkms", "add", module], timeout_s=DKMS_S)
        run_checked(
            ["dkms", "install", module, "-k", target.release],
            timeout_s=DKMS_S,
            hint=f"/var/lib/dkms/{module}/build/make.log tells why.",
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
