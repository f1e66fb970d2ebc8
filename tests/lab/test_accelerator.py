# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is taken where a kernel was heard to speak under it, and nowhere else; the report says why."""

import asyncio
import time
from pathlib import Path

import pytest

from ejectable.lab import accelerator
from ejectable.lab.accelerator import Accelerator, choose
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.modules import ModuleSet
from tests.lab.test_misbehaviour import KERNEL, Behave, behave

__all__ = ["behave"]


@pytest.fixture(autouse=True)
def open_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with a /dev/kvm that opens; what is behind it, the fake QEMU decides."""
    monkeypatch.setattr(accelerator, "_closed", lambda: None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(accelerator, "PROBE_S", 2.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def chosen(wanted: str = "auto", kernel: GuestKernel = KERNEL) -> Accelerator:
    return asyncio.run(choose(wanted, kernel, "pc"))


def test_a_kernel_that_speaks_under_kvm_runs_under_kvm(behave: Behave) -> None:
    behave("banner")
    assert chosen() == Accelerator("kvm", "the probe's kernel spoke under KVM")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("kvm-fails", "KVM internal error"),
        ("silent", "said nothing for 2 s"),
        ("refuses", "KVM does not work on this host: failed to initialize kvm: Permission denied"),
    ],
)
def test_a_kvm_that_opens_and_does_not_work_is_not_taken(behave: Behave, behaviour: str, words: str) -> None:
    behave(behaviour)
    found = chosen()
    assert (found.name, words in found.why) == ("tcg", True), found.why


def test_an_internal_error_is_not_waited_out(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    behave("kvm-fails")
    monkeypatch.setattr(accelerator, "PROBE_S", 60.0)
    started = time.monotonic()
    assert chosen().name == "tcg"
    assert time.monotonic() - started < 20


def test_the_probe_is_made_once_for_each_boot_of_the_host(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    behave("silent")
    first = chosen()
    behave("banner")
    assert chosen() == first
    monkeypatch.setattr(accelerator, "_boot_id", lambda: "another boot")
    assert chosen().name == "kvm"


def test_what_is_asked_for_is_not_probed_and_a_foreign_kernel_is_emulated(behave: Behave) -> None:
    behave("banner")
    assert chosen("tcg") == Accelerator("tcg", "as asked for")
    assert chosen("kvm") == Accelerator("kvm", "as asked for")
    foreign = chosen(kernel=GuestKernel("Image", "aarch64", b"", ModuleSet()))
    assert foreign == Accelerator("tcg", "KVM cannot run aarch64 kernels on this x86_64 host")
