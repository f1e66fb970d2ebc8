# SPDX-License-Identifier: GPL-2.0-or-later
"""apt's package lists, asked: those of the system where they are fresh, else newer ones in a folder of our own."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property

import msgspec

from ejectable import host
from ejectable.errors import EjectableError, Missing
from ejectable.intake import Directory
from ejectable.remedies.commands import run
from ejectable.remedies.upgrade.backend import Package, number, plain
from ejectable.remedies.upgrade.folders import cache

__all__ = ["Candidate", "Known", "Lists"]

DAY = 86400
MOST_NAMES = 500  # that are asked about at once: a kernel has a dozen packages
STAMP = "fetched"
OURS_FRESH_S = 3600  # lists that we fetched ourselves are taken for this long
QUERY_S = 60.0
UPDATE_S = 600.0
# Whatever hooks the system has for updates are for its own lists, not for ours; and only Packages files are wanted.
CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""


class Candidate(msgspec.Struct, frozen=True):
    """The version that apt would take, and what it depends on."""

    package: Package
    depends: str


class Known(msgspec.Struct, frozen=True):
    """What the lists say of one name."""

    candidate: Candidate | None
    taken: str  # the version that apt would take, "(none)" where it would none
    pinned: str | None  # a newer version that is there, and that a pin keeps apt from taking


class Lists:
    """The lists of a machine; `notes` is told what was done about them, `stale` why they may lack what is newest."""

    def __init__(self, root: host.Root, *, offline: bool, notes: list[str], stale: list[str]) -> None:
        self._root = root
        self._offline = offline
        self._notes = notes
        self._stale = stale

    @cached_property
    def options(self) -> tuple[str, ...]:
        """What makes apt use these lists, and an index cache of our own (the system's may not be written)."""
        ours: list[str] = []
        with suppress(Missing):
            folder = cache("apt")
            # A relative Dir would be taken from the system's; without these, each question costs a third of a second.
            ours = [
                "-o",
                f"Dir::Cache::pkgcache={folder}/pkgcache.bin",
                "-o",
                f"Dir::Cache::srcpkgcache={folder}/src.bin",
            ]
        old = self._old()
        if old is None:
            return tuple(ours)
        if self._offline:
            self._stale.append(f"{old}, and --offline forbids fetching newer ones: `sudo apt-get update` does.")
            return tuple(ours)
        try:
            private = self._private()
            self._notes.append(f"{old}: newer ones were fetched for this answer.")
            return (*ours, *private)
        except EjectableError as error:
            self._stale.append(f"{old}, and newer ones could not be fetched: {error.message}")
            return tuple(ours)

    def _old(self) -> str | None:
        """Why the lists of the system are not taken; `None` where they are."""
        refreshed = self._refreshed()
        if not refreshed:
            return "This system has no package lists yet"
        days = int((time.time() - refreshed) // DAY)
        if days > 0:
            return f"The package lists of this system are {days} {'day' if days == 1 else 'days'} old"
        sources = ["/etc/apt/sources.list", "/etc/apt/sources.list.d"]
        sources += [f"{sources[1]}/{name}" for name in self._root.list(sources[1]) or ()]
        if any(self._changed(path) > refreshed for path in sources):
            return "The package lists of this system are older than its list of sources"
        return None

    def _changed(self, path: str) -> float:
        about = self._root.stat(path)
        return about.st_mtime if about else 0.0

    def _refreshed(self) -> float:
        """When the lists of the system were fetched, in seconds; the files themselves carry their server's time."""
        kept = ("_Packages", "_Packages.lz4", "_Packages.gz", "_Packages.xz", "_Packages.zst")
        if not any(name.endswith(kept) for name in self._names()):
            return 0.0
        lists = "/var/lib/apt/lists"
        return max(map(self._changed, (lists, f"{lists}/partial", "/var/lib/apt/periodic/update-success-stamp")))

    def _names(self) -> Iterable[str]:
        return self._root.list("/var/lib/apt/lists") or ()

    def _private(self) -> list[str]:
        """Options for lists of our own; fetched where they are not there yet, or old."""
        with Directory.open(cache("apt")) as folder:
            with folder.enter("lists", make=True) as lists:
                lists.enter("partial", make=True).close()
            folder.write("apt.conf", CONFIGURATION.encode("ascii"), lasting=False)
            options = ["-o", f"Dir::State::Lists={folder.name}/lists", "-c", f"{folder.name}/apt.conf"]
            fetched = folder.lstat(STAMP)
            if fetched is None or time.time() - fetched.st_mtime > OURS_FRESH_S:
                # As this user, whoever that is: apt's own unprivileged user could not write here. Without the error
                # mode apt is content with what it has when the archive is out of reach (apt-get(8), --error-on=any).
                how = ("-o", "APT::Sandbox::User=", "-o", "APT::Update::Error-Mode=any")
                done = run(["apt-get", *options, *how, "-qq", "update"], timeout_s=UPDATE_S)
                if not done.ok or "Failed to fetch" in done.err:
                    raise Missing(done.last)
                folder.write(STAMP, b"", lasting=False)
        return options

    def ask(self, names: Sequence[str]) -> dict[str, Known]:
        """What the lists say of some packages; those that nobody knows are left out.

        Names may come out of records, whose author may have made them look like options of apt's, or very many.
        """
        names = [name for name in names if plain(name)][:MOST_NAMES]
        if not names:
            return {}
        found: dict[str, Known] = {}
        policy = run(["apt-cache", *self.options, "policy", *names], timeout_s=QUERY_S)
        taken = _policies(policy.out)
        wanted = [f"{name}={one.candidate}" for name, one in taken.items() if plain(name, one.candidate or "")]
        records = self.records(wanted)
        for name, one in taken.items():
            record = records.get((name, one.candidate or ""))
            found[name] = Known(record, one.candidate or "(none)", one.pinned())
        return found

    def records(self, words: Sequence[str]) -> dict[tuple[str, str], Candidate]:
        """The records of packages (`name=version`), by name and version."""
        if not words:
            return {}
        from debian.deb822 import Deb822

        shown = run(["apt-cache", *self.options, "show", *words], timeout_s=QUERY_S)
        found = {}
        for each in Deb822.iter_paragraphs(shown.out.splitlines(keepends=True), use_apt_pkg=False):
            package = Package(
                each.get("Package", ""),
                each.get("Version", ""),
                each.get("Architecture", ""),
                digest=each.get("SHA256", ""),
                size=number(each.get("Size")),
                installed_size=number(each.get("Installed-Size"), 1024),
            )
            if not plain(package.name, package.version, package.arch):
                continue
            depends = ", ".join(filter(None, (each.get("Pre-Depends"), each.get("Depends"))))
            # Of one that is installed there are two records: the archive's has the hash.
            key = (package.name, package.version)
            if package.digest or key not in found:
                found[key] = Candidate(package, depends.replace("\n", " "))
        return found

    def names(self, fits: Callable[[str], bool]) -> list[str]:
        """The names of packages on offer that fit."""
        done = run(["apt-cache", *self.options, "pkgnames"], timeout_s=QUERY_S)
        return [name for name in done.out.split() if fits(name)]


class _Policy(msgspec.Struct):
    """One entry of `apt-cache policy`."""

    candidate: str | None = None
    versions: list[str] = []  # newest first, as apt lists them

    def pinned(self) -> str | None:
        """A version newer than the one that apt would take."""
        newest = self.versions[0] if self.versions else None
        return newest if newest and newest != self.candidate else None


def _policies(text: str) -> dict[str, _Policy]:
    """Read `apt-cache policy`: the name at the start of a line, then Candidate, then versions with their priority."""
    found: dict[str, _Policy] = {}
    here = _Policy()
    for line in text.splitlines():
        words = line.split()
        if line[:1].strip() and line.endswith(":"):
            here = found.setdefault(line[:-1].partition(":")[0], _Policy())
        elif words[:1] == ["Candidate:"] and len(words) > 1:
            here.candidate = None if words[1:] == ["(none)"] else words[1]
        elif line.startswith(("     ", " *** ")) and not line.startswith("        ") and len(words) > 1:
            here.versions.append(words[1] if words[0] == "***" else words[0])
    return found
