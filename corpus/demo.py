# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole story in one go, with real parts: a stock Debian kernel, the same kernel with the faulty callback put
back, what the code of both says, and what an unplug does to both.

    make demo

Needs QEMU, busybox-static and what builds a module (requirements/debian.txt); downloads a kernel, its headers and its
source from Debian's archive on first use. Every command below is printed before it is run, and can be pasted.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from corpus.archive import fetch
from corpus.modules import faulty_module

__all__: list[str] = []

RELEASE = "6.1.0-50-cloud-amd64"
STARTED = time.monotonic()


def say(title: str, text: str = "") -> None:
    """A step: what is done now, and why."""
    print(f"\n=== {title}  [{time.monotonic() - STARTED:.0f} s]", flush=True)
    if text:
        print(textwrap.fill(" ".join(text.split()), 100), flush=True)


def ejectable(expected: int, *arguments: str) -> None:
    """Run a command of ours, shown as it could be typed; its exit code is part of the claim."""
    print(f"\n$ ejectable {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "ejectable", *arguments], check=False)
    print(f"(exit code {done.returncode})", flush=True)
    if done.returncode != expected:
        sys.exit(f"The demonstration failed: exit code {expected} was expected.")


def main() -> None:
    """Tell the story."""
    say("1. The parts", f"Debian's kernel {RELEASE}, from its package archive, and busybox for user space.")
    package = fetch(f"linux-image-{RELEASE}")
    print(f"the package: {package.name}, {package.stat().st_size >> 20} MiB")
    say(
        "2. The defect, put back",
        """Debian's 6.1 kernels never had it. The callback that v6.8 introduced is put into virtio_pci of Debian's
        linux-source, and that one module is built against Debian's linux-headers. Nothing else is changed.""",
    )
    module = faulty_module(RELEASE)
    print(f"the module: {module.parent.name}/{module.name}")
    with tempfile.TemporaryDirectory(prefix="ejectable-demo-") as folder:
        os.chdir(folder)
        Path("stock.deb").symlink_to(package)
        Path("faulty").symlink_to(module.parent)
        say(
            "3. What the code says",
            """No version number decides: the kernel's own function is run, in a sandbox, against a device that was
            driven as legacy. First the stock kernel, then the faulty module.""",
        )
        ejectable(0, "kernel", "stock.deb")
        ejectable(2, "kernel", "faulty/virtio_pci.ko")
        say("4. The stock kernel, unplugged", "Booted in QEMU with a legacy disk, which is then ejected through ACPI.")
        ejectable(0, "lab", "stock.deb", "--evidence", "stock")
        say("5. The same kernel with the faulty module, unplugged", "The same disk, the same eject.")
        ejectable(2, "lab", "stock.deb", "--modules", "faulty", "--evidence", "killed")
        (console,) = Path("killed").glob("*/console.log")
        say("6. What was it?", "The crash reader gets the guest's console, and nothing else.")
        ejectable(2, "crash", str(console))
        say(
            "7. A modern device on the faulty kernel",
            "Only a device that is driven as legacy takes the faulty path: this one survives, where the other died.",
        )
        ejectable(0, "lab", "stock.deb", "--modules", "faulty", "--mode", "modern", "--evidence", "modern")
        os.chdir("/")
    say(
        "Done", "The stock kernel lives, the faulty one dies, the code said so beforehand, and the crash told its name."
    )


if __name__ == "__main__":
    main()
