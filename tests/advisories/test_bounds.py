# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever bound is reached, no kernel with the defect is called safe; and real kernels come near none of them."""

import os
from functools import cache

import pytest
from msgspec.structs import replace

from corpus.list import paired_tree
from corpus.modules import Module
from corpus.traps import TRAPS
from ejectable.advisories import registry
from ejectable.advisories.cve_2024_42134.scene import Bounds
from ejectable.advisories.probe import probe as ask
from ejectable.errors import EjectableError, Missing
from ejectable.kernel import code
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.kernel.types import spelling
from ejectable.model import SAFE, DoubtKind, Finding, Status

pytestmark = pytest.mark.kernels

NARROW = [replace(Bounds(), **{name: value}) for name in Bounds.__struct_fields__ for value in (0, 1, 3)]
AFFECTED = ("affected", "affected-helper", "affected-late", *TRAPS)
FIXED = ("fixed", "fixed-feature", "fixed-is-legacy", "fixed-legacy-probe", "stock")


@cache
def built(variant: str) -> str:
    try:
        return str(Module(variant=variant).path())
    except Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def probe(kernel: Kernel, bounds: Bounds | None = None) -> Finding:
    return ask(registry()["CVE-2024-42134"], kernel, bounds)


def opened(path: str) -> Kernel:
    kernel = next(iter(open_kernels(path)))
    assert isinstance(kernel, Kernel)
    return kernel


def differs(bounds: Bounds) -> str:
    given = [(name, value) for name in bounds.__struct_fields__
             if (value := getattr(bounds, name)) != getattr(Bounds(), name)]  # fmt: skip
    return "-".join(f"{name}={value}" for name, value in given)


@pytest.mark.parametrize("bounds", NARROW, ids=differs)
def test_no_bound_makes_a_kernel_with_the_defect_safe(bounds: Bounds) -> None:
    for variant in AFFECTED[NARROW.index(bounds) % 2 :: 2]:
        finding = probe(opened(built(variant)), bounds)
        assert finding.status not in SAFE, (variant, finding.reason)


@pytest.mark.parametrize("bounds", NARROW[::4], ids=differs)
def test_no_bound_makes_one_safe_beside_its_kernels_types(bounds: Bounds) -> None:
    for variant in AFFECTED[::4]:
        built(variant)
        finding = probe(opened(str(paired_tree(Module(variant=variant)))), bounds)
        assert finding.status not in SAFE, (variant, finding.reason)


@pytest.mark.parametrize("value", [0, 1, 3])
@pytest.mark.parametrize("place", ["code.MOST_CODE", "code.WINDOW", "spelling.MOST_STEPS"])
def test_no_bound_of_reading_makes_one_safe(place: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = place.partition(".")
    monkeypatch.setattr({"code": code, "spelling": spelling}[module], name, value)
    for variant in AFFECTED[::3]:
        built(variant)
        for path in (built(variant), str(paired_tree(Module(variant=variant)))):
            try:
                finding = probe(opened(path))
            except EjectableError:
                continue
            assert finding.status not in SAFE, (path, finding.reason)


@pytest.mark.parametrize("bounds", NARROW[::2], ids=differs)
def test_a_fixed_kernel_that_is_not_called_fixed_for_a_bound_says_which(bounds: Bounds) -> None:
    finding = probe(opened(built("fixed")), bounds)
    if finding.status is Status.UNKNOWN:
        assert finding.doubts
        assert finding.reason
    else:
        assert finding.status is Status.FIXED


@pytest.mark.parametrize("variant", FIXED)
def test_no_kernel_comes_near_a_bound(variant: str) -> None:
    finding = probe(opened(built(variant)))
    assert finding.status in SAFE, finding.reason
    assert not [doubt for doubt in finding.doubts if doubt.kind is DoubtKind.BOUND]
