# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of kernel packages where `fix live --persist` has given its module to DKMS. Writes docs/live-dkms.md.

    make live-dkms                     every system (a quarter of an hour each; root, debootstrap, Debian's archive)
    make live-dkms ARGS="bookworm"     one of them

Each system is a debootstrapped Debian with that release's own DKMS, and two of its kernels with their headers. The
older one is the kernel that the module is for; beside it stands a module of somebody else that DKMS builds for each
kernel. Then kernels come and go, by apt, and each time the package manager has to end well, with an initrd, no module
of ours for a kernel that it was not proven on, and the neighbour's built. Last comes the configuration of earlier
versions of this tool, with its AUTOINSTALL line: it has to be recognised, and to be harmless once it is mended.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, locked, mirror
from corpus.chroots import usable
from corpus.live_modules import any_hook
from ejectable import __version__, host
from ejectable.errors import Missing
from ejectable.remedies.live.persist import dkms_conf, mended
from ejectable.remedies.live.target import MODULE, Target, copy_sources
from ejectable.remedies.live.toolchain import Compiler

__all__ = ["Step", "System"]

TARGET = Path("docs/live-dkms.md")
KEPT = "live-dkms.json"
SUITES = ("bullseye", "bookworm", "trixie")
PACKAGES = "dkms,gcc,make,libc6-dev,initramfs-tools,linux-base,kmod,zstd,ca-certificates"
OURS = f"ejectable-live/{__version__}"
SOURCE = f"usr/src/ejectable-live-{__version__}"
CONF = f"{SOURCE}/dkms.conf"
NEIGHBOUR = "neighbour/1.0"
NEIGHBOUR_CONF = """PACKAGE_NAME="neighbour"
PACKAGE_VERSION="1.0"
BUILT_MODULE_NAME[0]="neighbour"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
"""
NEIGHBOUR_C = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
HEAD = """<!-- Written by `make live-dkms`: do not edit. -->
# Kernel packages beside the module of `fix live --persist`

Real systems (debootstrap), their own DKMS, real kernel packages by apt. The older kernel is the one that the module
was installed for. Each step has to end with exit code 0 and nothing half-installed (`dpkg --audit`), with an initrd
for each kernel that is installed, our module for the older kernel alone, and the module of a neighbour (with
`AUTOINSTALL="yes"`) for each. The last two steps of each system have the line `AUTOINSTALL="no"` that an earlier
version wrote: it fails with DKMS 3.0 alone. Debian's archive has DKMS 2.8, 3.0 and 3.2; no release of it has 3.1.
"""


class Step(msgspec.Struct):
    """One step on one system; `wrong` says what contradicts the claim."""

    suite: str
    dkms: str
    what: str
    came_of_it: str
    wrong: str = ""


def packages(release: str) -> tuple[str, str]:
    """What one installs of a kernel."""
    return f"linux-image-{release}", f"linux-headers-{release}"


def base(suite: str) -> Path:
    """The folder of a system with apt's lists, made on first use."""
    folder = cache_folder() / "chroots" / f"dkms-{suite}"
    with locked(f"chroot-dkms-{suite}"):
        if not folder.exists():
            aside = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            _checked("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, aside, mirror())
            aside.rename(folder)
    security = mirror().removesuffix("/debian") + "/debian-security"
    lines = (f"{mirror()} {suite}", f"{mirror()} {suite}-updates", f"{security} {suite}-security")
    (folder / "etc/apt/sources.list").write_text("".join(f"deb {line} main\n" for line in lines))
    _checked("chroot", folder, "apt-get", "-qq", "update")
    return folder


class System:
    """One throw-away Debian."""

    def __init__(self, root: Path, suite: str) -> None:
        self.root = root
        self.suite = suite
        self.dkms = self.checked("dpkg-query", "-W", "-f", "${Version}", "dkms")
        names = re.findall(r"^linux-headers-(\d\S*-cloud-amd64)$", self.checked("apt-cache", "pkgnames"), re.MULTILINE)
        # The lists name more than the archive still has.
        there = (name for name in sorted(names, key=_number, reverse=True) if self.fetched(name))
        self.newer, self.older = next(there), next(there)

    @classmethod
    @contextmanager
    def make(cls, suite: str) -> Iterator["System"]:
        """A copy of the suite's system; gone at the end."""
        original = base(suite)
        folder = Path(tempfile.mkdtemp(prefix="ejectable-dkms-", dir=cache_folder()))
        try:
            _checked("cp", "-a", original, folder / "root")
            yield cls(folder / "root", suite)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, with a /proc of its own, to its end."""
        script = f'mount -t proc proc "{self.root}/proc" && exec chroot "{self.root}" "$@"'
        return subprocess.run(
            ["nice", "-n", "10", "unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", *words],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND": "noninteractive",
                "LC_ALL": "C.UTF-8",
                "HOME": "/root",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def checked(self, *words: str) -> str:
        """Run what must succeed; what it said."""
        done = self.run(*words)
        if done.returncode:
            raise Missing(f"`{' '.join(words)}` failed in the {self.suite} system: {done.stderr[-600:]}")
        return done.stdout.strip()

    def fetched(self, release: str) -> bool:
        """Whether the archive gives the packages of this kernel."""
        return self.apt("install", "--download-only", *packages(release))[0] == 0

    def apt(self, verb: str, *packages: str) -> tuple[int, str]:
        """apt-get's exit code and last words."""
        done = self.run("apt-get", "-y", "-qq", "--no-install-recommends", verb, *packages)
        return done.returncode, (done.stderr or done.stdout).strip()[-300:]

    def modules(self, name: str) -> set[str]:
        """The releases that have a module of this name installed."""
        return {path.relative_to(self.root / "lib/modules").parts[0] for path in self._modules(name)}

    def _modules(self, name: str) -> list[Path]:
        return list((self.root / "lib/modules").glob(f"*/updates/dkms/{name}.ko*"))

    def kernels(self) -> set[str]:
        """The releases whose image is installed."""
        return {path.name.removeprefix("vmlinuz-") for path in (self.root / "boot").glob("vmlinuz-*")}

    def without_initrd(self) -> set[str]:
        """Kernels that could not boot."""
        return {name for name in self.kernels() if not (self.root / f"boot/initrd.img-{name}").exists()}

    def give_sources(self, *, faulty_line: bool = False) -> None:
        """What `fix live --persist` writes below /usr/src, and the neighbour's sources."""
        target = Target(self.older, "#1 SMP a build", "ab" * 20, "cd" * 20, any_hook())
        folder = self.root / SOURCE
        folder.mkdir(parents=True, exist_ok=True)
        copy_sources(folder, target)
        text = dkms_conf(target, Compiler((), "the system's own"))
        (self.root / CONF).write_bytes(text + (b'AUTOINSTALL="no"\n' if faulty_line else b""))
        beside = self.root / "usr/src/neighbour-1.0"
        beside.mkdir(exist_ok=True)
        for name, content in (
            ("dkms.conf", NEIGHBOUR_CONF),
            ("neighbour.c", NEIGHBOUR_C),
            ("Makefile", "obj-m := neighbour.o\n"),
        ):
            (beside / name).write_text(content)

    def wrong(self, code: int, said: str, kernels: set[str], ours: set[str]) -> str:
        """What contradicts the claim now, or nothing."""
        audit = self.run("dpkg", "--audit").stdout.strip()
        checks = (
            (code != 0, f"exit code {code}: {' '.join(said.split())}"),
            (bool(audit), f"half-installed: {' '.join(audit.split())[:200]}"),
            (self.kernels() != kernels, f"kernels installed: {sorted(self.kernels())}"),
            (bool(self.without_initrd()), f"no initrd: {sorted(self.without_initrd())}"),
            (self.modules(MODULE) != ours, f"our module is there for {sorted(self.modules(MODULE))}"),
            (self.modules("neighbour") != kernels, f"the neighbour's for {sorted(self.modules('neighbour'))}"),
        )
        return "; ".join(text for failed, text in checks if failed)


def step_before(system: System, ended: tuple[int, str]) -> Step:
    """The first installation, with nothing of ours there: what the rest is compared with."""
    code, said = ended
    if code:
        raise Missing(f"{system.older} could not be installed in the {system.suite} system: {said}")
    return Step(system.suite, system.dkms, f"install {system.older} with headers, before there is any module", "well")


def story(system: System) -> Iterator[Step]:
    """Every step, as it ends."""
    older, newer = system.older, system.newer

    def step(what: str, ended: tuple[int, str], kernels: set[str], ours: set[str]) -> Step:
        wrong = system.wrong(*ended, kernels, ours)
        return Step(system.suite, system.dkms, what, "well", wrong)

    yield step_before(system, system.apt("install", *packages(older)))
    system.give_sources()
    system.checked("dkms", "add", NEIGHBOUR)
    system.checked("dkms", "install", NEIGHBOUR, "-k", older)
    system.checked("dkms", "add", OURS)
    done = system.run("dkms", "install", OURS, "-k", older)
    yield step(
        f"`dkms install` for {older}", (done.returncode, done.stdout[-200:] + done.stderr[-300:]), {older}, {older}
    )
    both = {older, newer}
    yield step(f"install {newer} with headers", system.apt("install", *packages(newer)), both, {older})
    again = system.apt("install", "--reinstall", *packages(newer))
    yield step(f"install {newer} again (an upgrade in place)", again, both, {older})
    again = system.apt("install", "--reinstall", *packages(older))
    yield step(f"install {older} again", again, both, {older})
    yield step(f"remove {newer}", system.apt("remove", *packages(newer)), {older}, {older})
    system.apt("install", *packages(newer))
    yield step(f"remove {older}, whose module it is", system.apt("remove", *packages(older)), {newer}, set())
    back = system.apt("install", *packages(older))
    yield step(f"install {older} once more", back, both, set())
    system.run("dkms", "remove", OURS, "--all")
    system.apt("remove", *packages(newer))
    yield from faulty_story(system)


def faulty_story(system: System) -> Iterator[Step]:
    """The configuration of earlier versions: what it does, that it is recognised, and that mending helps."""
    older, newer = system.older, system.newer
    system.give_sources(faulty_line=True)
    system.checked("dkms", "add", OURS)
    system.checked("dkms", "install", OURS, "-k", older)
    code, said = system.apt("install", *packages(newer))
    came = "well" if code == 0 else f"it fails ({code}): {' '.join(said.split())[-120:]}"
    named = host.read_live_repair(host.Root(system.root)).faulty_dkms
    wrong = "" if named == (f"/{CONF}",) else f"it is not recognised: {named}"
    yield Step(system.suite, system.dkms, f'with AUTOINSTALL="no": install {newer}', came, wrong)
    conf = system.root / CONF
    conf.write_bytes(mended(conf.read_bytes()))
    left = host.read_live_repair(host.Root(system.root)).faulty_dkms
    done = system.run("dpkg", "--configure", "-a")
    wrong = system.wrong(done.returncode, done.stderr[-300:], {older, newer}, {older})
    wrong = f"still recognised: {left}" if left else wrong
    yield Step(system.suite, system.dkms, "mended, then `dpkg --configure -a`", "well", wrong)


def page(steps: Sequence[Step]) -> str:
    """The whole page."""
    lines = [HEAD, f"Steps: {len(steps)}; that contradict the claim: {sum(bool(s.wrong) for s in steps)}.", ""]
    lines += ["| system | DKMS | step | came of it |", "|---|---|---|---|"]
    lines += [
        f"| Debian {step.suite} | {step.dkms} | {step.what} | "
        + (f"**{step.wrong}** |" if step.wrong else f"{step.came_of_it} |").replace("\n", " ")
        for step in steps
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Tell the story on each system, keep what came of it, write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("suites", nargs="*", default=SUITES, help=f"of {', '.join(SUITES)}")
    chosen = options.parse_args()
    if why := usable():
        raise SystemExit(f"Not possible here: {why}.")
    keep = cache_folder() / KEPT
    known = msgspec.json.decode(keep.read_bytes(), type=list[Step]) if keep.exists() else []
    for suite in chosen.suites:
        known = [step for step in known if step.suite != suite]
        with System.make(suite) as system:
            for step in story(system):
                known.append(step)
                print(f"{suite} (DKMS {step.dkms}): {step.what}: {step.wrong or step.came_of_it}", flush=True)
        keep.write_bytes(msgspec.json.encode(known))
    known.sort(key=lambda step: SUITES.index(step.suite))
    TARGET.write_text(page(known), encoding="utf-8")
    return 2 if any(step.wrong for step in known) else 0


def _number(release: str) -> list[int]:
    """For sorting releases: 6.12.118+deb13 comes after 6.12.117+deb13."""
    return [int(part) for part in re.findall(r"\d+", release)]


def _checked(*command: str | Path) -> None:
    done = subprocess.run(["nice", "-n", "10", *map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise Missing(f"`{' '.join(map(str, command))}` failed: {said}", hint="Is Debian's archive within reach?")


if __name__ == "__main__":
    sys.exit(main())
