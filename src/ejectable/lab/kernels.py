# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the kernel to run: its image as QEMU takes it, and the modules that belong to it.

From a package, an image, or a directory with `boot` and `lib/modules`, read in confined processes; nothing is unpacked
to disk.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from ejectable.errors import BadInput, DamagedInput, Missing
from ejectable.intake import DEFAULT_LIMITS, Limits, file_input, is_directory, open_regular, read_bounded
from ejectable.kernel.config import Config, parse_config
from ejectable.kernel.formats import Packed, recognise
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.kernel.modules import ArchiveModules
from ejectable.lab.features import Features
from ejectable.lab.inside import inside
from ejectable.lab.modules import ModuleSet, module_name
from ejectable.model import Arch

if TYPE_CHECKING:
    from ejectable.kernel.containers.archive import Archive

__all__ = ["GuestKernel", "member_of_package", "open_kernel"]

IMAGE_NAMES = ("vmlinuz-", "vmlinux-", "Image-", "bzImage", "Image", "vmlinuz")
PACKAGES = (".deb", ".rpm")
TEXT_LIMIT = 16 << 20
# The drivers of every kind of device, and all that they have been seen to depend on (modules.dep of 6.1 and 6.12).
LIKELY = re.compile(
    r"virtio\w*|scsi_mod|scsi_common|sd_mod|t10_pi|crc\w*|failover|net_failover|rng_core|vsock|vmw_vsock\w*|shpchp"
)


class GuestKernel(msgspec.Struct, frozen=True):
    """A kernel that can be run."""

    path: str
    arch: Arch
    image: bytes  # as QEMU's -kernel takes it
    modules: ModuleSet
    features: Features = msgspec.field(default_factory=Features)  # how it was built
    replaced_virtio_pci: str | None = None  # the file, where --modules has a virtio_pci of its own

    @property
    def page_kib(self) -> int:
        """The size of its pages, as an arm64 image's header tells (Documentation/arch/arm64/booting.rst, flags)."""
        if self.arch != "aarch64" or self.image[56:60] != b"ARM\x64":
            return 4
        return {2: 16, 3: 64}.get(self.image[24] >> 1 & 3, 4)


def open_kernel(path: str, *, modules: str | None = None, limits: Limits = DEFAULT_LIMITS) -> GuestKernel:
    """Read the kernel at `path`; the modules of `modules`, a directory or a package, hide its own."""
    place = Path(path)
    if is_directory(place):
        files = _folder(place, limits)
    elif path.endswith(PACKAGES):
        files = _package(path, limits)
    else:
        files = {path: lambda: _read(path, limits), **_beside(place, limits)}
    image_path = path if path in files else _choose_image(files, path)
    files = _of_release(files, image_path)
    content = files[image_path]()
    into = tuple[Arch, bytes | None]
    arch, unpacked = inside(lambda: _image(content, image_path, limits), into=into, limits=limits)
    image = content if unpacked is None else unpacked

    def code() -> ImageKernel:
        packed = recognise(content, name=image_path)
        return ImageKernel(image_path, packed, limits=limits, modules=ArchiveModules(), config=lambda _: None)

    offered = _modules(files)
    replaced = None
    if modules is not None:
        extra = (
            _package(modules, limits) if modules.endswith(PACKAGES) else _folder(Path(modules), limits, all_of_it=True)
        )
        if not any(module_name(name) for name in extra):
            raise BadInput("there is no module (.ko, .ko.xz, .ko.zst, .ko.gz) in it", path=modules)
        for name, read in extra.items():
            offered.add(name, read)
            if module_name(name) == "virtio_pci":
                replaced = modules if modules.endswith(PACKAGES) else name
    return GuestKernel(path, arch, image, offered, Features(_config(files), code), replaced)


def member_of_package(path: str, names: Collection[str], limit: int) -> bytes:
    """One file of a package, the first of `names` that is in it."""
    return inside(lambda: _member(path, names, limit), into=bytes, paths=(path,))


def _member(path: str, names: Collection[str], limit: int) -> bytes:
    for entry in _archive(path, DEFAULT_LIMITS).entries():
        if entry.name in names and entry.size <= limit:
            return entry.read()
    raise BadInput(f"this package has none of {', '.join(names)}", path=path)


def _read(path: str, limits: Limits) -> bytes:
    with open_regular(path) as stream:
        return read_bounded(stream, limits.in_memory, name=path)


def _interesting(name: str) -> bool:
    base = PurePosixPath(name).name
    return (
        module_name(name) is not None
        or base in ("modules.builtin", "modules.dep")
        or _is_image(base)
        or base.startswith("config-")
        or base == "config"
    )


def _folder(place: Path, limits: Limits, *, all_of_it: bool = False) -> dict[str, Callable[[], bytes]]:
    """The files below a directory, in a fixed order; symbolic links are not followed."""
    if not is_directory(place):
        raise Missing(f"{place}: no such directory.", hint="Check the path.")
    roots = [place] if all_of_it else [place / part for part in ("boot", "lib/modules", "usr/lib/modules")]
    if not any(root.is_dir() for root in roots):
        roots = [place]
    found: dict[str, Callable[[], bytes]] = {}
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if _interesting(path.name) and path.is_file() and not path.is_symlink():
                found[str(path)] = lambda path=path: _read(str(path), limits)  # type: ignore[misc]
    return found


def _beside(image: Path, limits: Limits) -> dict[str, Callable[[], bytes]]:
    """What belongs to an installed image: the config beside it, and the modules of its release.

    Installed as ROOT/boot/vmlinuz-RELEASE, or (Fedora) as ROOT/lib/modules/RELEASE/vmlinuz.
    """
    image = image.absolute()
    release = _release_of(str(image))
    if release is None:
        return {}
    modules = image.parent if image.parent.name == release else image.parents[1] / "lib/modules" / release
    found = _folder(modules, limits, all_of_it=True) if modules.is_dir() else {}
    config = image.with_name(f"config-{release}")
    if config.is_file():
        found[str(config)] = lambda: _read(str(config), limits)
    return {name: read for name, read in found.items() if not _is_image(PurePosixPath(name).name)}


def _release_of(path: str) -> str | None:
    """The release that a file belongs to, from its name: boot/vmlinuz-RELEASE, lib/modules/RELEASE/..."""
    pure = PurePosixPath(path)
    for at in range(len(pure.parts) - 2, 1, -1):
        if pure.parts[at - 2 : at] == ("lib", "modules"):
            return pure.parts[at]
    stem, dash, release = pure.name.partition("-")
    return release if dash and stem in ("vmlinuz", "vmlinux", "Image", "config") else None


def _of_release(files: dict[str, Callable[[], bytes]], image: str) -> dict[str, Callable[[], bytes]]:
    """Without what belongs to other releases than the image does."""
    release = _release_of(image)
    return {name: read for name, read in files.items() if release is None or _release_of(name) in (release, None)}


def _choose_image(files: dict[str, Callable[[], bytes]], path: str) -> str:
    """The image among the files: by name, the newest release where there are several."""
    images = [name for name in files if _is_image(PurePosixPath(name).name)]
    if not images:
        raise BadInput(
            "there is no kernel image (boot/vmlinuz-...) in it", path=path, hint="Give the package of the image itself."
        )
    return max(images, key=_release_order)


def _is_image(base: str) -> bool:
    return base.startswith(IMAGE_NAMES) or base == "vmlinux"


def _release_order(name: str) -> list[tuple[int, str]]:
    """Numbers count as numbers: 6.1.0-50 is newer than 6.1.0-9."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.findall(r"\d{1,9}|\D+", name)]


def _image(content: bytes, path: str, limits: Limits) -> tuple[Arch, bytes | None]:
    """Whose image it is, and what it unpacks to where QEMU takes it so: arm64's; bzImage and ELF are taken as they are.

    This is what a confined process does.
    """
    packed = _recognised(content, path)
    return packed.arch, None if packed.arch == "x86_64" else bytes(packed.unpack(limits))


def _recognised(content: bytes, path: str) -> Packed:
    """The image, where it is one that QEMU can start."""
    packed = recognise(content, name=path)
    if packed.format == "module" or (packed.arch == "x86_64" and packed.format not in ("bzImage", "vmlinux")):
        raise BadInput(f"expected a kernel image, found a {packed.format}", path=path)
    return packed


def _modules(files: dict[str, Callable[[], bytes]]) -> ModuleSet:
    builtin: set[str] = set()
    known = False
    dependencies: dict[str, tuple[str, ...]] = {}
    for name, read in files.items():
        base = PurePosixPath(name).name
        if base == "modules.builtin":
            known = True
            builtin |= {module for line in _lines(read()) if (module := module_name(line))}
        elif base == "modules.dep":
            for line in _lines(read()):
                head, _, needs = line.partition(":")
                if owner := module_name(head):
                    dependencies[owner] = tuple(module for word in needs.split() if (module := module_name(word)))
    offered = ModuleSet(builtin, builtin_known=known)
    for name, read in files.items():
        offered.add(name, read)
    offered.dependencies(dependencies)
    return offered


def _config(files: dict[str, Callable[[], bytes]]) -> Config | None:
    for name, read in files.items():
        if PurePosixPath(name).name.startswith("config"):
            text = read()[:TEXT_LIMIT]
            return Config(inside(lambda text=text: dict(parse_config(text)), into=dict[str, str]))  # type: ignore[misc]
    return None


def _lines(content: bytes) -> list[str]:
    return content[:TEXT_LIMIT].decode(errors="replace").splitlines()


def _package(path: str, limits: Limits) -> dict[str, Callable[[], bytes]]:
    """The files of a package that matter, from one walk through it.

    What a guest is likely to need is kept in memory as it is packed; another module that turns out to be needed
    costs another walk.
    """
    into = list[tuple[str, bytes | None]]
    found = inside(lambda: _walked(path, limits), into=into, paths=(path,), limits=limits)
    return {name: partial(_again, path, limits, name) if content is None else partial(bytes, content)
            for name, content in found}  # fmt: skip


def _walked(path: str, limits: Limits) -> list[tuple[str, bytes | None]]:
    """The files of a package that matter, and of the likely ones the content; this is what a confined process does."""
    found: list[tuple[str, bytes | None]] = []
    held = 0
    for entry in _archive(path, limits).entries():
        if not _interesting(entry.name):
            continue
        module = module_name(entry.name)
        if module is not None and not LIKELY.fullmatch(module):
            found.append((entry.name, None))
            continue
        content = entry.read()
        held += len(content)
        if held > limits.in_memory:
            raise DamagedInput(f"its kernels and drivers are more than {limits.in_memory} bytes", path=path)
        found.append((entry.name, content))
    return found


def _again(path: str, limits: Limits, name: str) -> bytes:
    """Another file of a package, from another walk."""
    return inside(lambda: bytes(_archive(path, limits).read(name)), into=bytes, paths=(path,), limits=limits)


def _archive(path: str, limits: Limits) -> "Archive":
    from ejectable.kernel.containers import deb, rpm

    source = file_input(path)
    return rpm.data_archive(source, limits) if path.endswith(".rpm") else deb.data_archive(source, limits)
