# SPDX-License-Identifier: GPL-2.0-or-later
"""Building the module, and looking at what came out before anybody loads it."""

from pathlib import Path

from ejectable.errors import Missing
from ejectable.remedies.commands import run
from ejectable.remedies.live.target import MODULE, Target, copy_sources, modinfo
from ejectable.remedies.live.toolchain import Compiler, Headers

__all__ = ["build", "built_for"]

BUILD_S = 300.0
MAX_MODULE = 16 << 20


def build(target: Target, folder: Path, headers: Headers, compiler: Compiler, *, extra: tuple[str, ...] = ()) -> Path:
    """Make the module in an empty private folder; raises `Missing` with the compiler's last words."""
    copy_sources(folder, target)
    command = ["make", "-C", str(folder), f"KDIR={headers.path}", *compiler.variables, *extra]
    finished = run(command, timeout_s=BUILD_S, env={"KBUILD_BUILD_TIMESTAMP": "", "MAKEFLAGS": ""})
    made = folder / f"{MODULE}.ko"
    if not finished.ok or not made.is_file():
        raise Missing(
            f"The module could not be built: {_reason(finished.err) or finished.last}",
            hint=f"Nothing was loaded. It was built with {compiler.what} in {headers.path}.",
        )
    built_for(made, target)
    return made


def _reason(said: str) -> str:
    """The first thing that went wrong: what make says of it afterwards is of no help."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("make")]
    found = [line for line in lines if "error" in line.lower() or "not found" in line]
    return (found or lines or [""])[0][:300]


def built_for(made: Path, target: Target) -> None:
    """That this file is the module for just this target, by what it carries; raises `Missing`."""
    if made.stat().st_size > MAX_MODULE:
        raise Missing(f"{made.name} has {made.stat().st_size} bytes: that is not what was to be built.")
    carries = modinfo(made.read_bytes())
    expected = {
        "name": MODULE,
        "ejectable_release": target.release,
        "ejectable_version": target.version,
        "ejectable_build_id": target.build_id,
        "ejectable_driver_build_id": target.driver_build_id or "",
        "ejectable_advisory": target.hook.part.advisory,
        "ejectable_digest": target.hook.digest,
    }
    for key, value in expected.items():
        if carries.get(key) != value:
            raise Missing(f"The module that was built says {key}={carries.get(key)!r}, and {value!r} was expected.")
    release = carries.get("vermagic", "").partition(" ")[0]
    if release != target.release:
        raise Missing(f"The module was built for {release or 'no kernel'}, and {target.release} runs.")
