# SPDX-License-Identifier: GPL-2.0-or-later
"""Single modules of Debian's kernel source with a defect put into them, for advisories that no kernel on offer has.

    DriverModule("virtio_blk", "frozen").path()                         for 6.1, amd64, gcc
    DriverModule("virtio_pci", "wrong-index", release=ARM_612).path()

Each keeps its DWARF, so that it can be judged without the kernel that it is for. What is true of each comes from its
edit, never from what ejectable says.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from corpus import compilers
from corpus.archive import cache_folder
from corpus.builds import Manifest, build_once, run_logged
from corpus.compilers import Compiler
from corpus.modules import DEFAULT_RELEASE, WRAPPER
from corpus.trees import architecture_of, headers, source, source_version
from ejectable.errors import OurFault

__all__ = ["DRIVER_MODULES", "DriverModule", "truth"]

ARM_61, AMD_612, ARM_612 = (
    "6.1.0-50-cloud-arm64", "6.12.117+deb12-cloud-amd64", "6.12.117+deb12-cloud-arm64",
)  # fmt: skip
Word = Literal["affected", "fixed", "not_affected"]
MAKEFILE = "obj-m := {name}.o\n{parts}"


class Driver(msgspec.Struct, frozen=True):
    """Where a driver is in the source, and what its module is linked of; no parts: of one file of its own name."""

    folder: str
    files: str
    parts: tuple[str, ...] = ()


class Edited(msgspec.Struct, frozen=True, kw_only=True):
    """Replacements in a driver's source, and what is true of it then, by advisory."""

    what: str
    edits: tuple[tuple[str, str, str, int], ...] = ()  # file, pattern, replacement, how often it must match
    truth: Mapping[str, Word]


DRIVERS = {
    "virtio_pci": Driver(
        "drivers/virtio", "virtio_pci_*.[ch]", ("virtio_pci_modern", "virtio_pci_common", "virtio_pci_legacy")
    ),
    "virtio_blk": Driver("drivers/block", "virtio_blk.c"),
}
COMMON, MODERN, BLK = "virtio_pci_common.c", "virtio_pci_modern.c", "virtio_blk.c"
INDEX, AVQ, NO_DRAIN, FROZEN = "CVE-2026-64457", "CVE-2024-53092", "virtio-blk-no-drain", "CVE-2024-57946"
DRAIN = r"\tblk_mq_freeze_queue\(q\);\n\tblk_mq_quiesce_queue_nowait\(q\);\n\tblk_mq_unfreeze_queue\(q\);\n"
RESUME = r"blk_mq_unquiesce_queue\(vblk->disk->queue\);"
RECORD = r"&vp_dev->vqs\[queue_idx\]"
EDITED: dict[tuple[str, str], Edited] = {
    ("virtio_pci", "stock"): Edited(what="as Debian ships it", truth={INDEX: "fixed", AVQ: "fixed"}),
    ("virtio_pci", "wrong-index"): Edited(
        what="as 89a1c435aec2 made it: records stand at positions",
        edits=((COMMON, RECORD, "&vp_dev->vqs[i]", 2),),
        truth={INDEX: "affected", AVQ: "fixed"},
    ),
    ("virtio_pci", "wrong-index-intx"): Edited(
        what="the same with one interrupt for all queues only",
        edits=((COMMON, rf"(VIRTIO_MSI_NO_VECTOR,\s+){RECORD}", r"\1&vp_dev->vqs[i]", 1),),
        truth={INDEX: "affected", AVQ: "fixed"},
    ),
    ("virtio_pci", "avq"): Edited(
        what="as before the fix of the admin queue's cleanup: it is looked for among the others",
        edits=((MODERN, r"admin_vq\.info->vq;", "vqs[vp_dev->admin_vq.vq_index]->vq;", 1),),
        truth={INDEX: "fixed", AVQ: "affected"},
    ),
    ("virtio_blk", "stock"): Edited(what="as Debian ships it", truth={NO_DRAIN: "fixed", FROZEN: "fixed"}),
    ("virtio_blk", "no-drain"): Edited(
        what="as before 4ce6e2db00de: nothing is waited for",
        edits=((BLK, DRAIN, "\tblk_mq_quiesce_queue(q);\n", 1),),
        truth={NO_DRAIN: "affected", FROZEN: "not_affected"},
    ),
    ("virtio_blk", "frozen"): Edited(
        what="as 4ce6e2db00de made it: the queue stays frozen",
        edits=(
            (BLK, DRAIN, "\tblk_mq_freeze_queue(q);\n", 1),
            (BLK, RESUME, "blk_mq_unfreeze_queue(vblk->disk->queue);", 1),
        ),
        truth={NO_DRAIN: "fixed", FROZEN: "affected"},
    ),
}


class DriverModule(msgspec.Struct, frozen=True):
    """One driver's module, edited, for one kernel's headers."""

    driver: str
    variant: str
    release: str = DEFAULT_RELEASE
    compiler: Compiler = "gcc-12"

    @property
    def name(self) -> str:
        """The name of the build's folder."""
        clang = "" if self.compiler == "gcc-12" else "-clang"
        return f"driver-{self.release}-{self.driver}-{self.variant}{clang}"

    @property
    def edited(self) -> Edited:
        """What was changed, and what is true of it."""
        return EDITED[self.driver, self.variant]

    def path(self) -> Path:
        """The module's file, made on first use; raises `Missing` when a package or compiler is not to be had."""
        return build_once(self.name, self._recipe)

    def _recipe(self, aside: Path) -> Manifest:
        family: Literal["6.1", "6.12"] = "6.12" if self.release.startswith("6.12") else "6.1"
        artefact = _build(aside, self, family)
        return Manifest(
            name=self.name,
            artefact=artefact.name,
            expected="not_affected",
            variant=self.variant,
            arch="arm64" if architecture_of(self.release) == "arm64" else "amd64",
            source=source_version(family),
            release=self.release,
            compiler=self.compiler,
            opt="O2",
            btf=False,
            debug=True,
            virtio_pci="module",
            notes=self.edited.what,
        )


def _build(aside: Path, module: DriverModule, family: str) -> Path:
    driver, arm = DRIVERS[module.driver], architecture_of(module.release) == "arm64"
    log = cache_folder() / "logs" / f"{module.name}.log"
    log.unlink(missing_ok=True)
    work = aside / "work"
    work.mkdir()
    for file in (source(family) / driver.folder).glob(driver.files):
        shutil.copy(file, work)
    for name, pattern, replacement, count in module.edited.edits:
        text, matched = re.subn(pattern, replacement, (work / name).read_text(), flags=re.MULTILINE)
        if matched != count:
            raise OurFault(f"The edit of {name} at /{pattern}/ matched {matched} times instead of {count}.")
        (work / name).write_text(text)
    parts = f"{module.driver}-y := {' '.join(f'{part}.o' for part in driver.parts)}\n" if driver.parts else ""
    (work / "Makefile").write_text(MAKEFILE.format(name=module.driver, parts=parts))
    command: list[str | Path] = ["make", "-C", headers(module.release), f"M={work}", "modules"]
    if arm:
        command += ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]
    if module.compiler == "gcc-12":
        command.append(f"CC={compilers.command('gcc-12', 'aarch64-linux-gnu-' if arm else '')}")
    else:
        wrapper = work / "clang-wrapper"
        target = f"--target={'aarch64' if arm else 'x86_64'}-linux-gnu"
        thunks = "" if arm else "-mretpoline-external-thunk -mfunction-return=thunk-extern"
        wrapper.write_text(WRAPPER.format(clang=compilers.command("clang-16"), target=target, flags=thunks))
        wrapper.chmod(0o755)
        command.append(f"CC={wrapper}")
    run_logged(command, log)
    done = (work / f"{module.driver}.ko").rename(aside / f"{module.driver}.ko")
    shutil.rmtree(work)
    return done


def truth(module: DriverModule) -> Mapping[str, Word]:
    """What is true of a module, by advisory: of those that are about its driver."""
    return module.edited.truth


BUILDS: dict[str, tuple[tuple[str, Compiler], ...]] = {
    "virtio_pci": ((AMD_612, "gcc-12"), (AMD_612, "clang-16"), (ARM_612, "gcc-12")),
    "virtio_blk": (
        (DEFAULT_RELEASE, "gcc-12"), (DEFAULT_RELEASE, "clang-16"), (ARM_61, "gcc-12"), (AMD_612, "gcc-12")
    ),
}  # fmt: skip
DRIVER_MODULES = [
    DriverModule(driver, variant, release, compiler)
    for driver, variant in EDITED
    for release, compiler in BUILDS[driver]
]
