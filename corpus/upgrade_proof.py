# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix upgrade`, proven on real package managers: `python -m corpus.upgrade_proof [WORD]` prints the table.

Each row is a fresh system in a chroot, where an affected kernel was installed as a package and "runs". Debian's archive
is the real one, over the network; the other repositories are served from this machine. WORD picks rows by name.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from corpus import kernel_packages
from corpus.chroots import Box, Kind, usable
from corpus.package_server import PackageServer

__all__ = ["CASES", "Row", "main", "rows"]

RUNNING, MIDDLE, NEWEST = kernel_packages.RELEASES
HEAD = "| system | plan | apply | verify | undo |\n|---|---|---|---|---|"
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""


class Row(msgspec.Struct):
    """One line of the table; `wrong` says what contradicts the claim."""

    system: str
    plan: str = "-"
    apply: str = "-"
    verify: str = "-"
    undo: str = "-"
    wrong: list[str] = []

    def expect(self, claim: bool, what: str) -> bool:
        """Note what does not hold."""
        if not claim:
            self.wrong.append(what)
        return claim

    def __str__(self) -> str:
        cells = (self.system, self.plan, self.apply, self.verify, self.undo)
        wrong = f" **{'; '.join(self.wrong)}**" if self.wrong else ""
        return f"| {' | '.join(cells)}{wrong} |"


def fix(box: Box, *words: str, user: str | None = None, mounts: str = "") -> tuple[int, dict[str, Any], str]:
    """`ejectable fix upgrade` inside: exit code, document (empty where it failed), what it said of errors."""
    done = box.ejectable("fix", "upgrade", "--format", "json", *words, user=user, mounts=mounts)
    return done.code, json.loads(done.out) if done.out else {}, done.err


def planned(box: Box, row: Row, *words: str, user: str | None = None) -> dict[str, Any]:
    """The plan's line; the first time, and from the cache the second time."""
    started = time.monotonic()
    code, found, said = fix(box, *words, user=user)
    first = time.monotonic() - started
    if not row.expect(code == 2 and bool(found), f"plan ended with {code}: {said}"):
        return {"state": "none", "verified": False, "why": said, "commands": []}
    started = time.monotonic()
    _, again, _ = fix(box, *words, user=user)
    second = time.monotonic() - started
    line: dict[str, Any] = found["plan"][0]
    # What a download failed of may be worded differently each time; a verdict may not.
    same = [{key: one[key] for key in ("state", "verified", "commands")} for one in (line, again["plan"][0])]
    row.expect(same[0] == same[1], "the second plan says something else")
    if line["verified"]:
        row.expect(line["why"] == again["plan"][0]["why"], "the second plan gives another reason")
    row.plan = f"{line['state']}{', verified' if line['verified'] else ''} ({first:.1f} s, then {second:.1f} s)"
    return line


def whole_story(box: Box, row: Row, package: Path | None) -> None:
    """Plan, apply, verify, undo: of a system whose newest kernel is good."""
    before = box.state()
    line = planned(box, row)
    row.expect(line["state"] == "possible" and line["verified"], f"not planned: {line['why']}")
    row.expect(box.state() == before, "the plan changed something")
    code, found, said = fix(box, "--apply")
    if not row.expect(code == 0, f"apply ended with {code}: {said}"):
        return
    applied = found["applied"]
    row.apply = " ".join(applied["changes"])
    row.expect(applied["verified"] and applied["reboot"], "not verified")
    row.verify = "what is on disk is what was judged"
    image = newest_image(box)
    if package is not None:
        there = hashlib.sha256(image.read_bytes()).hexdigest()
        row.expect(there == hash_in(package), "the image on disk is not the one in the package")
        row.verify += ", byte for byte"
    later = fix(box)[1]["plan"][0]
    # The box has no boot loader whose file says what boots next: it is not promised.
    row.expect("is installed and was not booted yet" in later["why"], "it does not say that it is installed")
    row.expect("may boot next, but that is not certain" in later["why"], "it promises what boots next")
    code, found, said = fix(box, "--undo")
    row.expect(code == 0, f"undo ended with {code}: {said}")
    same = row.expect(box.state() == before, "undo left something behind")
    row.undo = "as before: packages, /boot, /lib/modules" if same else "differs"


def newest_image(box: Box) -> Path:
    """The image of the newest release inside."""
    found = [*(box.root / "boot").glob("vmlinuz-*"), *(box.root / "usr/lib/modules").glob("*/vmlinuz")]
    return max((path for path in found if not path.is_symlink()), key=lambda path: path.stat().st_ctime)


def hash_in(package: Path) -> str:
    """Of the kernel image in a package, unpacked by the reference tools."""
    tool = ["dpkg-deb", "--fsys-tarfile", str(package)] if package.suffix == ".deb" else ["rpm2cpio", str(package)]
    unpack = (
        ["tar", "xO", "--wildcards", "./boot/vmlinuz-*"]
        if package.suffix == ".deb"
        else ["cpio", "-i", "--quiet", "--to-stdout", "*/vmlinuz*"]
    )
    with subprocess.Popen(tool, stdout=subprocess.PIPE) as outer:
        data = subprocess.run(unpack, stdin=outer.stdout, check=True, capture_output=True).stdout
    return hashlib.sha256(data).hexdigest()


def nothing_done(box: Box, row: Row, before: str, what: str, *, mounts: str = "") -> None:
    """Apply must fail with one sentence, and leave everything as it was."""
    code, _, said = fix(box, "--apply", mounts=mounts)
    row.apply = (
        f"refused ({code}): {said.strip().splitlines()[0].removeprefix('ejectable: ')[:160] if said.strip() else ''}"
    )
    row.expect(code == 69 and "Traceback" not in said, f"ended with {code}")
    row.expect(what in said, f"does not say {what!r}: {said}")
    same = row.expect(box.state() == before, "something was left behind")
    row.undo = "nothing to undo: as before" if same else "differs"


@contextmanager
def system(kind: Kind, *, split: bool = False) -> Iterator[Box]:
    """A system with the affected kernel in use."""
    with Box.make(kind) as box:
        box.install_running(split=split)
        yield box


def packages(kind: Kind, release: str, variant: str, *, fails: bool = False) -> list[Path]:
    """The packages of a kernel for a package manager."""
    if kind == "apt":
        return [kernel_packages.deb(release, variant, fails=fails)]
    return kernel_packages.rpms(release, variant, suse=kind == "zypper", fails=fails)


def image_package(found: list[Path]) -> Path:
    """The one with the image."""
    return next((path for path in found if path.name.startswith("kernel-core")), found[0])


def debian_archive(row: Row) -> None:
    """Debian's own newest kernel, from its archive."""
    with system("apt") as box:
        whole_story(box, row, None)


def newest_fixed(kind: Kind) -> Callable[[Row], None]:
    """A repository whose newest kernel has the fix."""

    def run(row: Row) -> None:
        with system(kind) as box:
            found = packages(kind, NEWEST, "fixed")
            box.offer(*packages(kind, RUNNING, "affected"), *found)
            whole_story(box, row, image_package(found))

    return run


def newest_affected(kind: Kind) -> Callable[[Row], None]:
    """A repository whose newest kernel still has the defect: the plan goes on to the next remedy."""

    def run(row: Row) -> None:
        with system(kind) as box:
            box.offer(*packages(kind, NEWEST, "affected"))
            before = box.state()
            line = planned(box, row)
            row.expect(line["state"] == "impossible" and "still has the defect" in line["why"], line["why"])
            whole = json.loads(box.ejectable("fix", "--offline", "--format", "json").out or '{"plan": []}')
            best = next((one["remedy"] for one in whole["plan"] if one["state"] == "recommended"), "none")
            row.expect(best not in ("upgrade", "none"), f"the plan does not go on: {best}")
            row.verify = f"the plan goes on to `{best}`"
            nothing_done(box, row, before, "still has the defect")

    return run


def split_packages(row: Row) -> None:
    """The image in one package and virtio_pci.ko in another, a metapackage that leads to both: as Ubuntu has it."""
    with system("apt", split=True) as box:
        found = kernel_packages.split_debs(NEWEST, "fixed")
        box.offer(*found)
        whole_story(box, row, next(path for path in found if path.name.startswith(f"linux-image-{NEWEST}")))
        row.expect(row.apply.count(NEWEST) == 3, f"not the same packages as for the kernel in use: {row.apply}")


def without_root(kind: Kind) -> Callable[[Row], None]:
    """An ordinary user plans, over HTTP; the second plan downloads nothing."""

    def run(row: Row) -> None:
        with system(kind) as box, PackageServer.serving(box.repository) as server:
            box.offer(*packages(kind, NEWEST, "fixed"), url=server.url)
            line = planned(box, row, user="65534:65534")
            row.expect(line["verified"], line["why"])
            asked = [Path(path).name for path in server.packages_asked]
            row.expect(len(asked) == len(set(asked)), f"downloaded twice: {asked}")
            row.verify = "one download for two plans"

    return run


def cut_off(kind: Kind) -> Callable[[Row], None]:
    """The line breaks in the middle of the package."""

    def run(row: Row) -> None:
        with system(kind) as box, PackageServer.serving(box.repository) as server:
            box.offer(*packages(kind, NEWEST, "fixed"), url=server.url)
            server.cut_after = 2 << 20
            before = box.state()
            line = planned(box, row)
            row.expect(not line["verified"] and "not verified" in line["why"], line["why"])
            nothing_done(box, row, before, "could not be downloaded")

    return run


def another_hash(row: Row) -> None:
    """The archive has another file than its list says."""
    with system("apt") as box, PackageServer.serving(box.repository) as server:
        box.offer(*packages("apt", NEWEST, "fixed"), url=server.url)
        package = next(box.repository.glob("*.deb"))
        data = bytearray(package.read_bytes())
        data[len(data) // 2] ^= 1
        package.write_bytes(data)
        before = box.state()
        line = planned(box, row)
        row.expect(not line["verified"] and "not verified" in line["why"], line["why"])
        nothing_done(box, row, before, "could not be downloaded")


def disk_full(row: Row) -> None:
    """A /boot that the kernel does not fit into."""
    with system("apt") as box:
        box.offer(*packages("apt", NEWEST, "fixed"))
        boot = box.root / "boot"
        mounts = (
            f'mkdir -p "{box.root}/keep" && cp -a "{boot}/." "{box.root}/keep/" && '
            f'mount -t tmpfs -o size=32m tmpfs "{boot}" && cp -a "{box.root}/keep/." "{boot}/"'
        )
        before = box.state()
        nothing_done(box, row, before, "/boot is too small", mounts=mounts)


def postinst_fails(kind: Kind) -> Callable[[Row], None]:
    """The package manager fails half-way: the package's own script ends with 1."""

    def run(row: Row) -> None:
        with system(kind) as box:
            box.offer(*packages(kind, NEWEST, "fixed", fails=True))
            before = box.state()
            code, _, said = fix(box, "--apply")
            row.apply = f"failed ({code}), taken back"
            row.expect(code == 69 and "Traceback" not in said, f"ended with {code}: {said}")
            same = row.expect(box.state() == before, "something was left behind")
            row.undo = "as before" if same else "differs"

    return run


def held_back(kind: Kind) -> Callable[[Row], None]:
    """Somebody decided that the kernel stays as it is: an exclude of dnf's, a lock of zypper's."""

    def run(row: Row) -> None:
        with system(kind) as box:
            box.offer(*packages(kind, RUNNING, "affected"), *packages(kind, NEWEST, "fixed"))
            if kind == "dnf":
                box.write("/etc/dnf/dnf.conf", "[main]\nexcludepkgs=kernel*6.1.0-56*\n")
            else:
                box.checked("zypper", "--non-interactive", "addlock", "kernel-default")
            before = box.state()
            line = planned(box, row)
            what = "versionlock or an exclude" if kind == "dnf" else "kernel-default is locked"
            row.expect(line["state"] == "impossible" and what in line["why"], line["why"])
            nothing_done(box, row, before, what)

    return run


def locked(kind: Kind) -> Callable[[Row], None]:
    """Somebody else has the lock of dpkg or rpm."""

    def run(row: Row) -> None:
        with system(kind) as box:
            box.offer(*packages(kind, NEWEST, "fixed"))
            before = box.state()
            lock = box.root / ("var/lib/dpkg/lock-frontend" if kind == "apt" else "var/lib/rpm/.rpm.lock")
            holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
            try:
                assert holder.stdout is not None
                holder.stdout.readline()
                nothing_done(box, row, before, f"process {holder.pid}")
            finally:
                holder.kill()
                holder.wait()

    return run


def full_while_unpacking(row: Row) -> None:
    """The package says that it takes no room, and dpkg runs out of it."""
    with system("apt") as box:
        box.offer(kernel_packages.deb(NEWEST, "fixed", lies=True))
        modules = box.root / "usr/lib/modules"
        mounts = (
            f'mkdir -p "{box.root}/keep" && cp -a "{modules}/." "{box.root}/keep/" && '
            f'mount -t tmpfs -o size=120m tmpfs "{modules}" && cp -a "{box.root}/keep/." "{modules}/"'
        )
        before = box.state()
        nothing_done(box, row, before, "No space left on device", mounts=mounts)


def stopped(kind: Kind, number: signal.Signals) -> Callable[[Row], None]:
    """A signal while files are unpacked: after SIGTERM it takes everything back, after SIGKILL the next run does."""

    def run(row: Row) -> None:
        with system(kind) as box:
            box.offer(*packages(kind, NEWEST, "fixed"))
            before = box.state()
            words = box.command([sys.executable, "-m", "ejectable", "fix", "upgrade", "--apply"])
            process = subprocess.Popen(
                words,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "HOME": "/root", "TMPDIR": "/tmp"},
                text=True,
            )
            half = box.root / "usr/lib/modules" / NEWEST
            give_up = time.monotonic() + 300
            while not half.exists() and time.monotonic() < give_up and process.poll() is None:
                time.sleep(0.01)
            row.expect(half.exists(), "it was not under way")
            process.send_signal(number)
            said = process.communicate()[1]
            row.apply = f"{number.name} while files were unpacked"
            row.expect("Traceback" not in said, said)
            if number is signal.SIGKILL:
                code, _, said = fix(box, "--undo")
                row.expect(code == 0, f"undo ended with {code}: {said}")
            same = row.expect(box.state() == before, "something was left behind")
            who = "the next run" if number is signal.SIGKILL else "it"
            row.undo = f"{who} took it back: as before" if same else "differs"

    return run


CASES: dict[str, Callable[[Row], None]] = {
    "apt, Debian's archive": debian_archive,
    "apt, newest fixed": newest_fixed("apt"),
    "apt, newest still affected": newest_affected("apt"),
    "apt, split as Ubuntu has it": split_packages,
    "apt, without root, over HTTP": without_root("apt"),
    "apt, download cut off": cut_off("apt"),
    "apt, another hash": another_hash,
    "apt, /boot full": disk_full,
    "apt, dpkg locked": locked("apt"),
    "apt, postinst fails": postinst_fails("apt"),
    "apt, disk full while unpacking": full_while_unpacking,
    "apt, ended half-way": stopped("apt", signal.SIGTERM),
    "apt, killed half-way": stopped("apt", signal.SIGKILL),
    "dnf, newest fixed": newest_fixed("dnf"),
    "dnf, newest still affected": newest_affected("dnf"),
    "dnf, excluded": held_back("dnf"),
    "dnf, without root, over HTTP": without_root("dnf"),
    "dnf, download cut off": cut_off("dnf"),
    "dnf, killed half-way": stopped("dnf", signal.SIGKILL),
    "dnf, rpm locked": locked("dnf"),
    "dnf, scriptlet fails": postinst_fails("dnf"),
    "zypper, newest fixed": newest_fixed("zypper"),
    "zypper, newest still affected": newest_affected("zypper"),
    "zypper, locked": held_back("zypper"),
    "zypper, without root, over HTTP": without_root("zypper"),
    "zypper, download cut off": cut_off("zypper"),
    "zypper, killed half-way": stopped("zypper", signal.SIGKILL),
    "zypper, rpm locked": locked("zypper"),
    "zypper, scriptlet fails": postinst_fails("zypper"),
}


def rows(word: str = "") -> Iterator[Row]:
    """The rows whose name has `word` in it, each as soon as it is known."""
    for name, case in CASES.items():
        if word in name:
            row = Row(name)
            case(row)
            yield row


def main(words: list[str]) -> int:
    """Print the table; 1 where a row contradicts the claim."""
    if why := usable():
        sys.stderr.write(f"{why}\n")
        return 69
    print(HEAD, flush=True)
    wrong = 0
    for row in rows(" ".join(words)):
        print(row, flush=True)
        wrong += bool(row.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
