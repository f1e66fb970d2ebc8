# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab reads packages, images and modules in confined processes; their death is named, and nothing is run."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.cli.app import run
from ejectable.errors import Ended
from ejectable.intake import Compression
from ejectable.lab import kernels, modules
from ejectable.lab.kernels import open_kernel
from ejectable.lab.modules import needed
from tests.kernel import synthetic
from tests.lab.test_kernels import lay_out, members

READERS = (
    (kernels, "_walked"),
    (kernels, "recognise"),
    (kernels, "parse_config"),
    (modules, "decompress"),
    (modules, "depends_of"),
)


@pytest.fixture(params=["package", "folder"])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return lay_out(tmp_path, members())
    path = tmp_path / "linux.deb"
    path.write_bytes(synthetic.deb(members(), Compression.XZ))
    return path


def test_nothing_is_read_in_the_process_itself(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    for module, name in READERS:
        reads: Callable[..., object] = getattr(module, name)

        def watched(*positional: object, reads: Callable[..., object] = reads, **named: object) -> object:
            assert os.getpid() != parent, "foreign bytes are read outside"
            return reads(*positional, **named)

        monkeypatch.setattr(module, name, watched)
    kernel = open_kernel(str(given))
    assert [module.name for module in needed(kernel.modules, ("virtio_pci",))] == ["virtio", "virtio_pci"]
    assert kernel.features.has("CONFIG_HOTPLUG_PCI_ACPI") is True
    assert kernel.features.has_driver("virtio_blk") is None


@pytest.mark.parametrize("how", [os.abort, socket.socket, lambda: os.execv("/bin/true", ["true"])])
def test_a_reader_that_misbehaves_ends_and_nothing_is_run(
    how: Callable[[], object], given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "recognise", lambda *_, **__: how())
    with pytest.raises(Ended, match="killed by SIG"):
        open_kernel(str(given))
    assert run(["lab", str(given)]) == 69
    assert "another machine" in capsys.readouterr().err
