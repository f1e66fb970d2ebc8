# SPDX-License-Identifier: GPL-2.0-or-later
"""The images in the bytes of one file: the file itself, or what a boot loader's file carries."""

from collections.abc import Iterator
from functools import partial

import msgspec

from ejectable.errors import BadInput, NotSupported
from ejectable.intake import Limits
from ejectable.intake.inputs import memory_input
from ejectable.kernel.containers.archive import Archive
from ejectable.kernel.foreign_kernel import ForeignKernel
from ejectable.kernel.formats import Packed, recognise
from ejectable.kernel.formats.bundles import unwrap
from ejectable.kernel.initramfs import initramfs_archive, is_initramfs
from ejectable.kernel.kernel import Unreadable, unreadable
from ejectable.kernel.modules import InitramfsModules

__all__ = ["FoundImage", "images_in"]


class FoundImage(msgspec.Struct, frozen=True):
    """An image that can be read; `member` is its name in the file that carries it, `modules` those that came along."""

    name: str
    member: str | None
    packed: Packed
    modules: tuple[InitramfsModules, ...] = ()


def images_in(data: bytes, name: str, limits: Limits) -> Iterator[FoundImage | ForeignKernel | Unreadable]:
    """Each image; raises `BadInput` or `DamagedInput` where there is just one, and it is none or broken."""
    view = memoryview(data).toreadonly()
    try:
        bundle = unwrap(view, name)
        if bundle is None:
            yield FoundImage(name, None, recognise(view, name=name))
            return
    except NotSupported as error:
        yield ForeignKernel(name, view, error)
        return
    initramfs = [(f"{name}({label})", part) for label, part in bundle.initramfs]
    carried = [(path, partial(_archive, path, part, limits)) for path, part in initramfs]
    modules = (InitramfsModules(lambda _release: carried),) if carried else ()
    for label, content in bundle.kernels:
        inner = f"{name}({label})"
        try:
            yield FoundImage(inner, label, recognise(content, name=inner), modules)
        except NotSupported as error:
            yield ForeignKernel(name, content, error, member=label)
        except BadInput as error:
            if len(bundle.kernels) == 1:
                raise
            yield unreadable(inner, error)


def _archive(path: str, part: memoryview, limits: Limits) -> Archive | None:
    source = memory_input(path, part)
    return initramfs_archive(source, limits) if is_initramfs(source) else None
