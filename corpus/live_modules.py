# SPDX-License-Identifier: GPL-2.0-or-later
"""ejectable_live.ko for kernels of the corpus, built as the product builds it, and kept in the cache.

for_debian("6.1.0-50-cloud-amd64")     for Debian's kernel with the faulty virtio_pci.ko
trouble_for_debian("6.1.0-50-cloud-amd64")   what may go wrong beside it
for_small("amd64-kasan")               for a small kernel with the faulty callback built in
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from corpus.archive import cache_folder, fetch, locked
from corpus.kernels import CONFIGS, build_tree, small_kernel
from corpus.modules import faulty_module, vmlinux_btf
from corpus.trees import architecture_of, headers
from ejectable.advisories.cve_2024_42134.live_part import LIVE
from ejectable.advisories.live_part import Resolved, resolve
from ejectable.errors import Missing
from ejectable.kernel import Types
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.kernel.program import Member
from ejectable.remedies.commands import run_checked
from ejectable.remedies.live.build import build
from ejectable.remedies.live.target import MODULE, SOURCES, Target, source
from ejectable.remedies.live.toolchain import compiler_for, read_headers

__all__ = ["any_hook", "for_debian", "for_small", "target_of_debian", "trouble_for_debian", "uts_version"]

CROSS = "aarch64-linux-gnu-"
TROUBLE = Path(__file__).with_name("trouble")


def uts_version(banner: str) -> str:
    """What `uname -v` says under the kernel with this banner: it begins with "#"."""
    match = re.search(r"(#\d+ .*)", banner.strip())
    if match is None:
        raise Missing(f"{banner!r} names no version.")
    return match[1]


def target_of_debian(release: str, variant: str = "affected") -> Target:
    """Debian's kernel, with the faulty callback in its virtio_pci.ko."""
    from ejectable.kernel.module import Module
    from ejectable.kernel.types.btf import load_btf

    module = faulty_module(release, variant)
    driver = Module(module.read_bytes(), name=module.name)
    kernel = _first(fetch(f"linux-image-{release}", architecture_of(release)))
    assert driver.btf is not None
    types = load_btf(driver.btf, base=load_btf(vmlinux_btf(release).read_bytes()))
    return Target(
        release, uts_version(kernel.banner or ""), kernel.build_id or "", driver.elf.build_id, resolve(LIVE, types)
    )


class _Somewhere:
    """Types that put each member somewhere."""

    source = "btf"

    def member(self, struct: str, path: str) -> Member:
        """As `Types.member`."""
        del struct
        return Member(path, 0, 64, "long")


def any_hook() -> Resolved:
    """The hook with offsets of no kernel: it can be compiled, and is never loaded."""
    return resolve(LIVE, cast("Types", _Somewhere()))


def for_debian(release: str, variant: str = "affected") -> Path:
    """The module for Debian's kernel with this variant of virtio_pci.ko."""
    arm = architecture_of(release) == "arm64"
    return _kept(release, lambda: target_of_debian(release, variant), lambda: headers(release), arm=arm)


def for_small(config: str = "amd64-gcc", variant: str = "affected") -> Path:
    """The module for a small kernel."""

    def target() -> Target:
        kernel = _first(small_kernel(variant, config))
        assert kernel.vmlinux is not None
        assert kernel.vmlinux.types is not None
        hook = resolve(LIVE, kernel.vmlinux.types)
        return Target(kernel.release or "", uts_version(kernel.banner or ""), kernel.build_id or "", None, hook)

    return _kept(config, target, lambda: build_tree(config), arm=CONFIGS[config].arch == "arm64")


def trouble_for_debian(release: str) -> Path:
    """The module that makes trouble beside it (corpus/trouble), for Debian's kernel."""
    content = {name: (TROUBLE / name).read_bytes() for name in ("trouble.c", "Kbuild")}
    state = hashlib.sha256(b"".join(content.values())).hexdigest()[:16]
    kept = cache_folder() / "live" / f"trouble-{release}-{state}" / "trouble.ko"
    with locked(f"trouble-{release}"):
        if not kept.exists():
            found = read_headers(headers(release), release)
            with tempfile.TemporaryDirectory(prefix="trouble-") as folder:
                for name, text in content.items():
                    (Path(folder) / name).write_bytes(text)
                words = ["make", "-C", str(found.path), f"M={folder}", *compiler_for(found).variables, "modules"]
                run_checked(words, timeout_s=300)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(f"{folder}/trouble.ko", kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
    return kept


def _first(path: Path) -> Kernel:
    found = next(iter(open_kernels(path)))
    assert isinstance(found, Kernel), found
    return found


def _kept(name: str, target: Callable[[], Target], tree: Callable[[], Path], *, arm: bool) -> Path:
    """Built once for each state of the sources, and of what the module is built for."""
    aim = target()
    content = b"".join(source(file) for file in SOURCES) + aim.header()
    kept = cache_folder() / "live" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}" / f"{MODULE}.ko"
    with locked(f"live-{name}"):
        if not kept.exists():
            found = read_headers(tree(), aim.release)
            compiler = compiler_for(found, cross=CROSS if arm else "")
            extra = ("ARCH=arm64", f"CROSS_COMPILE={CROSS}") if arm else ()
            with tempfile.TemporaryDirectory(prefix="live-") as folder:
                made = build(aim, Path(folder), found, compiler, extra=extra)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(made, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
    return kept
