# SPDX-License-Identifier: GPL-2.0-or-later
"""What a module is built with: the headers of exactly this kernel, the compiler that it was built with, make."""

import re
import shlex
from os import geteuid
from pathlib import Path

import msgspec

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies.commands import run, which
from ejectable.remedies.ownership import tree_writer

__all__ = ["Compiler", "Headers", "compiler_for", "find_headers", "headers_package", "read_headers"]

CONF_LINE = re.compile(r'(CONFIG_\w{1,128})="?(.*?)"?$', re.MULTILINE)
UTS_RELEASE = re.compile(r'#define UTS_RELEASE "(.*)"')
MAX_CONF = 4 << 20
ASKING_S = 10.0


class Headers(msgspec.Struct, frozen=True):
    """A tree to build modules in. `compiler` is what the kernel says it was built with."""

    path: Path
    release: str
    family: str  # gcc, clang
    version: str  # "12.2.0", "16.0.6"
    compiler: str

    @property
    def major(self) -> str:
        """The compiler's major version: its plugins' and sanitizers' interfaces change with it."""
        return self.version.partition(".")[0]


class Compiler(msgspec.Struct, frozen=True):
    """A compiler that fits, as variables for make."""

    variables: tuple[str, ...]
    what: str  # for people


def find_headers(root: host.Root, release: str, os: str | None) -> Headers:
    """The headers of this kernel; raises `Missing` with the package to install."""
    hint = headers_package(root, release, os)
    place = root.resolve(f"/lib/modules/{release}/build")
    if place is None or not root.exists(f"{place}/Makefile"):
        raise Missing(f"The headers of kernel {release} are not installed (/lib/modules/{release}/build).", hint=hint)
    path = Path(root.outside(place))
    # make runs what stands in the tree, and sign-file comes out of it: whoever may write to it would act as root.
    if (root.live or geteuid() == 0) and (said := tree_writer(path)):
        raise Missing(
            f"The headers in /lib/modules/{release}/build are not in root's hands alone: {said}.",
            hint=f"Install them as a package ({hint}). If you trust what is in them: sudo chown -R root: "
            f"{shlex.quote(place)} && sudo chmod -R go-w {shlex.quote(place)}",
        )
    return read_headers(path, release, hint)


def read_headers(path: Path, release: str, hint: str | None = None) -> Headers:
    """A build tree, looked at; raises `Missing` where it is another kernel's, or not complete."""
    try:
        conf = (path / "include/config/auto.conf").read_bytes()[:MAX_CONF].decode("utf-8", "replace")
        # Not include/config/kernel.release, which on Debian has the upstream release.
        named = UTS_RELEASE.search((path / "include/generated/utsrelease.h").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Missing(f"{path} is no complete tree of headers ({error}).", hint=hint) from error
    if named is None or named[1] != release:
        raise Missing(f"{path} has the headers of {named[1] if named else 'nothing'}, not of {release}.", hint=hint)
    if not (path / "Module.symvers").is_file():
        raise Missing(f"{path} lacks Module.symvers: modules cannot be built in it.", hint=hint)
    options = dict(CONF_LINE.findall(conf))
    if options.get("CONFIG_MODULES") != "y" or "CONFIG_MODULE_UNLOAD" not in options:
        raise Missing("This kernel takes no modules, or does not let them go again.", hint="A reboot it has to be.")
    family = "clang" if options.get("CONFIG_CC_IS_CLANG") == "y" else "gcc"
    number = options.get("CONFIG_CLANG_VERSION" if family == "clang" else "CONFIG_GCC_VERSION", "")
    if not number.isdecimal() or not 5 <= len(number) <= 9:
        raise Missing(f"{path} does not say which compiler the kernel was built with.", hint=hint)
    # scripts/cc-version.sh: 10000 * major + 100 * minor + patch level
    version = f"{int(number) // 10000}.{int(number) // 100 % 100}.{int(number) % 100}"
    return Headers(path, release, family, version, options.get("CONFIG_CC_VERSION_TEXT", f"{family} {version}"))


def compiler_for(headers: Headers, *, cross: str = "") -> Compiler:
    """A compiler of the same kind and major version, make, and (where it is clang) its linker; raises `Missing`."""
    family, major = headers.family, headers.major
    package = "llvm" if family == "clang" else "gcc"
    hint = f"Install {family} {major} (Debian, Ubuntu: `apt-get install {family}-{major}"
    hint += f" lld-{major}" if package == "llvm" else ""
    hint += f"`; elsewhere the distribution's own {family})."
    if which("make") is None:
        raise Missing("`make` was not found.", hint="Install make (Debian, Ubuntu: `apt-get install make`).")
    seen = []
    prefix = cross if family == "gcc" else ""
    for name in (f"{prefix}{family}-{major}", f"{prefix}{family}"):
        if which(name) is None:
            continue
        found = run([name, "-dumpversion"], timeout_s=ASKING_S).out.strip()
        seen.append(f"{name} is {found}")
        if found.partition(".")[0] != major:
            continue
        if family == "gcc":
            return Compiler((f"CC={name}",), f"{name} {found}")
        # LLVM=-16 takes clang-16, ld.lld-16 and so on (Documentation/kbuild/llvm.rst).
        suffix = name.removeprefix("clang")
        if which(f"ld.lld{suffix}") is None:
            raise Missing(f"`ld.lld{suffix}` was not found.", hint=hint)
        return Compiler((f"LLVM={suffix or 1}", f"CC={name}"), f"{name} {found}")
    there = f" ({', '.join(seen)})" if seen else ""
    raise Missing(f"This kernel was built with {headers.compiler}: {family} {major} was not found{there}.", hint=hint)


def headers_package(root: host.Root, release: str, os: str | None) -> str:
    """How to get the headers, by the machine's kind of distribution (os-release(5))."""
    text = root.text("/etc/os-release", 65536) or root.text("/usr/lib/os-release", 65536) or ""
    words = " ".join(re.findall(r'^(?:ID|ID_LIKE)="?([^"\n]*)', text, re.MULTILINE)).split()
    if {"debian", "ubuntu"} & set(words):
        return f"sudo apt-get install linux-headers-{release}"
    if {"fedora", "rhel", "centos"} & set(words) or (os or "").startswith(("Alibaba", "Anolis")):
        return f"sudo dnf install kernel-devel-{release}"
    if any(word.startswith(("suse", "opensuse", "sles")) for word in words):
        flavour = release.rpartition("-")[2] or "default"
        return f"sudo zypper install kernel-{flavour}-devel"
    return f"Install the headers (or -devel package) of kernel {release}."
