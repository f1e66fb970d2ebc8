# SPDX-License-Identifier: GPL-2.0-or-later
"""Things that are made once: a folder `built/<name>` in the cache, with a manifest that says how it was made.

A build happens in a folder aside and is renamed when it is complete, under a lock: several processes may ask for
the same one. The manifest's `expected` comes from the edit that was made, never from what ejectable says of it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from corpus.archive import cache_folder, locked
from corpus.compilers import Compiler
from ejectable.errors import Missing

__all__ = ["Expected", "Manifest", "Opt", "build_once", "built", "manifest_of", "run_logged"]

Expected = Literal["affected", "fixed", "not_affected"]
Opt = Literal["O2", "Os"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """How one artefact was made, and so what is true of it."""

    name: str
    artefact: str  # the file's name in the same folder
    expected: Expected
    variant: str  # of the edit (corpus.patches)
    arch: Literal["amd64", "arm64"]
    source: str  # linux-source-6.1 6.1.192-2
    release: str  # what `uname -r` says under this kernel, or the kernel that this module is for
    compiler: Compiler
    opt: Opt
    btf: bool
    debug: bool = False  # DWARF is in it
    retpoline: bool = True
    virtio_pci: Literal["builtin", "module"]
    compression: str = "none"  # of the file: of the module, or of the boot image's payload
    form: str = "ko"  # ko, bzImage, Image, Image.gz, vmlinuz.efi, vmlinux
    notes: str = ""


def built() -> Path:
    """The folder of everything that was made."""
    folder = cache_folder() / "built"
    folder.mkdir(exist_ok=True)
    return folder


def manifest_of(folder: Path) -> Manifest:
    """The manifest of one build; raises `Missing` where there is none."""
    path = folder / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise Missing(f"{path} does not exist.", hint="The build did not finish; ask for it again.") from None


def build_once(name: str, recipe: Callable[[Path], Manifest]) -> Path:
    """The artefact called `name`, made by `recipe(folder aside)` on first use.

    The recipe writes its file into the folder that it is given and returns the manifest.
    """
    folder = built() / name
    if not (folder / "manifest.json").exists():
        with locked(f"build-{name}"):
            if not (folder / "manifest.json").exists():
                aside = built() / f".{name}.part"
                shutil.rmtree(aside, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)
                aside.mkdir()
                manifest = recipe(aside)
                (aside / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
                aside.rename(folder)
    return folder / manifest_of(folder).artefact


def run_logged(
    command: Sequence[str | Path], log: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a build step, niced, its output appended to `log`; raises `Missing` with the last lines of it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                ["nice", "-n", "10", *map(str, command)],
                cwd=cwd,
                # Nothing of the user's build settings may change what is built.
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": os.environ.get("HOME", "/"),
                    "LC_ALL": "C",
                    "KBUILD_BUILD_TIMESTAMP": "2024-01-01",
                    "KBUILD_BUILD_USER": "corpus",
                    "KBUILD_BUILD_HOST": "ejectable",
                    **(env or {}),
                },
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise Missing(f"{error.filename} was not found.", hint="See requirements/debian.txt.") from error
    if done.returncode:
        tail = log.read_text(errors="replace")[-1500:]
        raise Missing(
            f"`{' '.join(map(str, command))}` failed with {done.returncode}.", hint=f"The end of {log}:\n{tail}"
        )
