# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a module from a source tree against a kernel's headers, in a private folder, and judges it.

The tree's own Makefiles are not used: only the names of the objects are read from them. The Makefiles of the headers
are: whoever names them with --build trusts them, as one does who builds any module.
"""

import os
import re
from pathlib import Path

import msgspec

from ejectable.assess.kernels import judge_path
from ejectable.errors import BadInput, Missing
from ejectable.intake import Directory, Limits, open_regular, read_bounded
from ejectable.model import EvidenceKind, Finding, KernelReport
from ejectable.remedies.acting import acting_as, as_ourselves
from ejectable.remedies.commands import Finished, run, which
from ejectable.remedies.ownership import tree_writer
from ejectable.remedies.source_tree import SourceTree, inside
from ejectable.remedies.workspace import workspace

__all__ = ["Built", "build"]

BUILD_S = 900.0
MAX_SOURCE = 4 << 20
MAX_MODULE = 64 << 20
TOOLS = "Debian, Ubuntu: `apt-get install build-essential`; Red Hat, SUSE: gcc, make and elfutils-libelf-devel."
# Symbol in the configuration → (ARCH=, the prefix of a cross compiler, os.uname().machine).
ARCHITECTURES = {
    "CONFIG_X86_64": ("x86_64", "x86_64-linux-gnu-", "x86_64"),
    "CONFIG_ARM64": ("arm64", "aarch64-linux-gnu-", "aarch64"),
}
OBJECTS = r"^{module}-(y|objs|\$\((CONFIG_\w+)\))\s*[:+]?=((?:[^\n\\]|\\\n)*)"


class Built(msgspec.Struct, frozen=True):
    """A module that was built and judged."""

    release: str  # of the kernel that it is for
    module: bytes  # without debugging information, unless it was built for another user
    finding: Finding

    @property
    def was_run(self) -> bool:
        """Whether the verdict comes from running its code."""
        return any(
            one.kind is EvidenceKind.EXECUTED and one.says is self.finding.status for one in self.finding.evidence
        )


def build(tree: SourceTree, headers: str, limits: Limits) -> Built:
    """Build the tree's module against `headers`: an installed headers package, or a configured and prepared tree.

    Raises `Missing` or `BadInput` with what is in the way; nothing is left behind.
    """
    top, config = _configuration(headers)
    option = f"CONFIG_{tree.fix.module.upper()}"
    if config.get(option) != "m":
        found = "built in" if config.get(option) == "y" else "switched off"
        raise BadInput(
            f"{tree.fix.module} is {found} there, so no module replaces it ({option} is not m)",
            path=headers,
            hint="Build the whole kernel from the tree instead.",
        )
    with acting_as(tree.owner):
        return _built(tree, headers, top, config, limits)


def _built(tree: SourceTree, headers: str, top: Path, config: dict[str, str], limits: Limits) -> Built:
    name = f"{tree.fix.module}.ko"
    prefix, words = _make_words(config)
    with workspace("build") as aside:
        work = Path(aside.name)
        _copy(tree, aside, config)
        done = run(
            ["make", "-C", str(top), f"M={work}", *words, "modules"],
            timeout_s=BUILD_S,
            hint=TOOLS,
            env={"MAKEFLAGS": "", "KBUILD_MODPOST_WARN": ""},
        )
        if not done.ok or not aside.lstat(name):
            raise BadInput(
                f"{name} could not be built against {headers}: {_first_error(done)}",
                path=tree.given,
                hint=f"Do the headers belong to this tree? A compiler is needed too. {TOOLS}",
            )
        module = aside.read(name, MAX_MODULE)
        report = _judge(module, tree, limits)
        release = report.release or ""
        if not re.fullmatch(r"\w[\w.+~-]{0,63}", release):
            raise BadInput("the module that was built does not say which kernel it is for", path=headers)
        # What is kept of a user's build is what was judged: whoever built it could change it in between.
        if tree.owner is None and which(f"{prefix}strip"):
            run([f"{prefix}strip", "--strip-debug", str(work / name)], timeout_s=60)
            module = aside.read(name, MAX_MODULE)
        return Built(release, module, report.findings[0])


def _configuration(headers: str) -> tuple[Path, dict[str, str]]:
    try:
        top = Path(headers).resolve(strict=True)
        prepared = top / "include/config/auto.conf"
        if not (top / "Makefile").is_file() or not prepared.is_file():
            raise Missing(
                f"{headers}: expected kernel headers or a configured tree, found no Makefile with "
                "include/config/auto.conf.",
                hint="Install headers (linux-headers-..., kernel-devel), or run `make modules_prepare` in the tree.",
            )
        if os.geteuid() == 0 and (said := tree_writer(top)):
            # make runs what stands in them.
            raise Missing(
                f"The headers in {headers} are not in root's hands alone: {said}.", hint="Build as their owner."
            )
        with open_regular(prepared) as file:
            text = read_bounded(file, MAX_SOURCE, name=str(prepared)).decode("utf-8", "replace")
    except PermissionError as error:
        raise Missing(f"{headers}: may not be read by this user.", hint="Run it as their owner.") from error
    except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        hint = "Install the headers: linux-headers-$(uname -r) or kernel-devel; then give /lib/modules/RELEASE/build."
        raise Missing(f"{headers}: no such folder.", hint=hint) from error
    return top, dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def _make_words(config: dict[str, str]) -> tuple[str, list[str]]:
    """The prefix of the binary tools, and what make has to be told about the compiler."""
    words = ["LLVM=1"] if config.get("CONFIG_CC_IS_CLANG") == "y" else []
    for symbol, (arch, prefix, machine) in ARCHITECTURES.items():
        if config.get(symbol) == "y" and machine != os.uname().machine:
            return prefix, [*words, f"ARCH={arch}", f"CROSS_COMPILE={prefix}"]
    return "", words


def _copy(tree: SourceTree, work: Directory, config: dict[str, str]) -> None:
    """The driver's sources and a Makefile of ours. What the tree's Makefile says beyond names is not taken over."""
    folder = tree.top / tree.fix.folder
    objects = _objects(tree, config)
    names = {path.name for path in folder.glob(f"{tree.fix.module}_*.h")} | {
        name.removesuffix(".o") + ".c" for name in objects
    }
    for name in sorted(names):
        path = inside(tree.top, f"{tree.fix.folder}/{name}")
        with open_regular(path) as file:
            work.write(name, read_bounded(file, MAX_SOURCE, name=str(path)), lasting=False)
    # Debugging information gives the judge the types that it lays objects out by.
    text = f"obj-m := {tree.fix.module}.o\n{tree.fix.module}-y := {' '.join(objects)}\nccflags-y += -g\n"
    work.write("Makefile", text.encode(), lasting=False)


def _objects(tree: SourceTree, config: dict[str, str]) -> list[str]:
    path = inside(tree.top, f"{tree.fix.folder}/Makefile")
    module = re.escape(tree.fix.module)
    found: list[str] = []
    if path.is_file():
        with open_regular(path) as file:
            text = read_bounded(file, MAX_SOURCE, name=str(path)).decode("utf-8", "replace")
        for match in re.finditer(OBJECTS.replace("{module}", module), text, re.MULTILINE):
            if match[2] is None or config.get(match[2]) == "y":
                found += re.findall(rf"(?<![\w./-])({module}_\w+\.o)(?![\w./-])", match[3])
    optional = [name for option, name in tree.fix.optional if config.get(option) == "y"]
    return list(dict.fromkeys(found or [*tree.fix.objects, *optional]))


def _judge(module: bytes, tree: SourceTree, limits: Limits) -> KernelReport:
    name = f"{tree.fix.module}.ko"
    with as_ourselves(), workspace("module") as aside:
        aside.write(name, module, lasting=False)
        judged = judge_path(f"{aside.name}/{name}", (tree.fix.advisory,), limits)
    if not judged.kernels:
        said = judged.unreadable[0].error if judged.unreadable else "there is no kernel code in it"
        raise BadInput(f"the module that was built cannot be read: {said}", path=name)
    return judged.kernels[0]


def _first_error(done: Finished) -> str:
    for line in done.err.splitlines():
        if re.search(r"\berror:|Error \d|not found|No such file", line):
            return re.sub(r"^\S*/(?=[^/\s]+:)", "", line.strip())[:300]
    return done.last
