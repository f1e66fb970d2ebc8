# SPDX-License-Identifier: GPL-2.0-or-later
"""Signatures: where the kernel takes only signed modules, ours is signed with the machine's own enrolled key."""

from pathlib import Path

import msgspec

from ejectable.errors import Missing
from ejectable.remedies.commands import run, which
from ejectable.remedies.live.toolchain import CONF_LINE, MAX_CONF, Headers
from ejectable.remedies.situation import Situation

__all__ = ["Key", "key", "needed", "sign"]

# Where DKMS and Ubuntu's shim-signed keep the key pair of a machine owner: private key, certificate.
PLACES = (
    ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"),
    ("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"),
)
OWN = ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub")
SIGNING_S = 30.0


class Key(msgspec.Struct, frozen=True):
    """A machine owner's key (MOK): paths of the private key and the certificate."""

    private: str
    certificate: str


def needed(situation: Situation) -> str | None:
    """Why the kernel takes only signed modules; `None` where it takes others too."""
    running = situation.facts.running
    if situation.root.text("/sys/module/module/parameters/sig_enforce", 16) in ("Y", "1"):
        return "module.sig_enforce is on"
    if running and running.lockdown in ("integrity", "confidentiality"):
        return f"the kernel is locked down ({running.lockdown}), as Secure Boot does it"
    return None


def key(situation: Situation) -> Key:
    """The key to sign with; raises `Missing` with how to make and enroll one, where there is none that is enrolled."""
    why = needed(situation) or "it is wanted"
    for private, certificate in PLACES:
        if situation.root.file(private) is None or situation.root.file(certificate) is None:
            continue
        found = Key(private, certificate)
        if which("mokutil") is not None:
            said = run(["mokutil", "--test-key", certificate], timeout_s=SIGNING_S)
            # It ends with 1 where the key is enrolled (mokutil.c, test_key); its words are plainer.
            if "already enrolled" not in said.out + said.err:
                raise Missing(
                    f"Only signed modules are taken ({why}), and the key {certificate} is not enrolled.",
                    hint=f"sudo mokutil --import {certificate}; reboot, and confirm it at the boot prompt.",
                )
        return found
    private, certificate = OWN
    raise Missing(
        f"Only signed modules are taken ({why}), and this machine has no key of its own (MOK).",
        hint=f"sudo install -d -m 0700 {Path(private).parent} && sudo openssl req -new -x509 -newkey rsa:2048 -nodes "
        f"-days 3650 -subj '/CN=Module signing/' -outform DER -keyout {private} -out {certificate} && "
        f"sudo mokutil --import {certificate}; reboot, and confirm it at the boot prompt (MOK manager).",
    )


def sign(module: Path, found: Key, headers: Headers) -> None:
    """Sign the module in place (Documentation/admin-guide/module-signing.rst); raises `Missing`."""
    program = headers.path / "scripts" / "sign-file"
    if not program.is_file():
        raise Missing(
            f"{program} is not there: the module cannot be signed.", hint="Install the whole headers package."
        )
    conf = (headers.path / "include/config/auto.conf").read_bytes()[:MAX_CONF].decode("utf-8", "replace")
    digest = dict(CONF_LINE.findall(conf)).get("CONFIG_MODULE_SIG_HASH", "sha256")
    done = run([str(program), digest, found.private, found.certificate, str(module)], timeout_s=SIGNING_S)
    if not done.ok:
        raise Missing(f"The module could not be signed with {found.private}: {done.last}", hint="Is it a valid key?")
