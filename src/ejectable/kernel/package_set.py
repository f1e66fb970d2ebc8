# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel that came in several packages: the image in one, its modules in others.

Ubuntu has linux-image-* and linux-modules-*, Fedora and Red Hat kernel-core, kernel-modules-core and kernel-modules:
what is built as a module there is in none of the image's packages, and its absence from one proves nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from ejectable.errors import BadInput
from ejectable.intake import DEFAULT_LIMITS, Limits, open_regular
from ejectable.kernel.archive_kernels import Part, kernels_in
from ejectable.kernel.containers import deb, rpm
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.kernel.package import from_deb, from_rpm

__all__ = ["open_package_set"]


def open_package_set(paths: Sequence[Path], *, limits: Limits = DEFAULT_LIMITS) -> ImageKernel:
    """The kernel whose image is in one of the packages, with the modules and the configuration of all of them.

    Raises `BadInput` where none holds an image, `DamagedInput` where one is broken.
    """
    parts = [open_package(path, limits) for path in paths]
    for kernel in kernels_in(parts, limits):
        if isinstance(kernel, ImageKernel):
            return kernel
    names = ", ".join(path.name for path in paths)
    raise BadInput(f"none of these packages holds a kernel image: {names}")


def open_package(path: Path, limits: Limits) -> Part:
    """The files of a Debian or an RPM package; raises `BadInput` for something else."""
    with open_regular(path) as file:
        head = file.read(8)
    if head.startswith(deb.MAGIC):
        archive = deb.data_archive(path, limits)
        return Part(str(path), archive, from_deb(str(path), archive, limits))
    if head.startswith(rpm.MAGIC):
        return Part(str(path), rpm.data_archive(path, limits), from_rpm(str(path)))
    raise BadInput("expected a Debian or an RPM package, found something else", path=str(path))
