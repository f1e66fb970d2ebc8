# SPDX-License-Identifier: GPL-2.0-or-later
"""A crash and the kernel it came from: the sizes of functions tell whether it is the same build, its code the rest."""

import functools
import re

import pytest

from corpus.list import paired_tree
from corpus.modules import Module
from ejectable.advisories import choose
from ejectable.assess.crashes import Build, compare, join, judge
from ejectable.crash.logs import read_bytes
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.model import Event, Status
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

pytestmark = pytest.mark.kernels

LOG = load(next(path for path in FIXTURES if path.stem == "defect-amd64-lab")).log
RELEASE = "6.1.0-50-cloud-amd64"
PLACE = re.compile(rb"(\w+)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[(\w+)\])?")


@functools.cache
def _kernel(variant: str) -> Kernel:
    """Debian's kernel with a virtio_pci of ours, as a machine has them on its disk."""
    module = Module(release=RELEASE, variant=variant)
    (kernel,) = (one for one in open_kernels(paired_tree(module)) if isinstance(one, Kernel))
    return kernel


def _crash(kernel: Kernel) -> Event:
    """The report of the fixture, with the sizes that functions have in this build: compilers differ from day to day."""

    def place(match: re.Match[bytes]) -> bytes:
        name, module = match[1].decode(), match[2]
        program = kernel.module(module.decode()) if module else kernel.vmlinux
        sizes = {symbol.size for symbol in program.symbols.variants(name) if symbol.size} if program else set()
        tail = b" [%s]" % module if module else b""
        return b"%s+0x1/%#x%s" % (match[1], sizes.pop(), tail) if len(sizes) == 1 else match[0]

    event = read_bytes(PLACE.sub(place, LOG), "console.log").events[0]
    assert judge(event, choose(())).advisory == "CVE-2024-42134"
    return event


def _compared(event: Event, kernel: Kernel) -> Build:
    return compare(event, kernel, choose(()))


def test_the_build_that_crashed_and_has_the_defect_makes_it_certain() -> None:
    kernel = _kernel("affected")
    event = _crash(kernel)
    build = _compared(event, kernel)
    assert build.same is True
    assert build.findings[0].status is Status.AFFECTED
    told = join(judge(event, choose(())), build)
    assert told.confidence == 1
    assert "it is certain" in told.why


def test_another_size_of_the_function_to_blame_is_another_build_however_many_others_agree() -> None:
    event = _crash(_kernel("affected"))
    build = _compared(event, _kernel("stock"))
    assert build.agree > 10
    assert build.same is False
    told = join(judge(event, choose(())), build)
    assert told.confidence == judge(event, choose(())).confidence
    assert "another build than the one that crashed" in told.why


def test_the_build_that_crashed_but_is_fixed_is_a_contradiction_that_is_shown() -> None:
    kernel = _kernel("fixed")
    event = _crash(kernel)
    build = _compared(event, kernel)
    assert build.same is True
    assert build.findings[0].status is Status.FIXED
    told = join(judge(event, choose(())), build)
    assert told.confidence <= 0.3
    assert "a contradiction" in told.why
