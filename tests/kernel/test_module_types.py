# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of a module that carries none: those of its kernel, where the kernel is there."""

from corpus.list import paired_tree
from corpus.modules import Module
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.open import open_kernels


def test_a_module_without_btf_has_the_types_of_its_kernel() -> None:
    module = Module(variant="fixed", btf=False)
    (alone,) = open_kernels(module.path())
    (whole,) = open_kernels(paired_tree(module))
    assert isinstance(alone, Kernel)
    assert isinstance(whole, Kernel)
    lone, joined = alone.module("virtio_pci"), whole.module("virtio_pci")
    assert lone is not None
    assert lone.types is None
    assert joined is not None
    assert joined.types is not None
    assert joined.types.struct("pci_dev") is not None
    assert joined.types.struct("virtio_pci_device") is None
