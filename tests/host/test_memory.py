# SPDX-License-Identifier: GPL-2.0-or-later
"""The code as it runs, out of the memory of guests that ran: it decides over what is on disk."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from corpus.archive import cache_folder
from ejectable import host
from ejectable.cli.app import run
from ejectable.errors import BadInput, DamagedInput, Missing
from ejectable.kernel.memory import CoreFile, read_proc_kallsyms
from tests.host.captured import captured
from tests.host.trees import Machine, affected_module, module_build_id, notes
from tests.one import ONE

needs_guest = [pytest.mark.kernels, pytest.mark.guest]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))  # the test kernels stay where they are
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _answer(tree: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    code = run(["check", *ONE, "--root", str(tree), "--format", "json"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return {**found, "code": code}


class TestOfARealGuest:
    pytestmark = needs_guest

    @pytest.mark.parametrize(("variant", "status", "code"), [("affected", "affected", 2), ("fixed", "fixed", 0)])
    def test_memory_alone_decides_where_no_file_is_left(
        self, variant: str, status: str, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = _answer(captured(variant), capsys)
        assert (found["status"], found["code"]) == (status, code)
        kernel = found["kernel"]
        assert isinstance(kernel, dict)
        assert (kernel["format"], kernel["running"]) == ("memory", True)
        assert "executed" in {item["kind"] for item in kernel["findings"][0]["evidence"]}

    def test_what_is_repaired_in_memory_only_is_mitigated(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # The memory of a guest with the fixed code, the files (and what names the build) of one without.
        shutil.copytree(captured("fixed"), tmp_path / "tree", symlinks=True)
        affected = Machine(module=affected_module()).build(tmp_path / "affected")
        for name in ("boot", "usr", "lib"):
            (affected / name).rename(tmp_path / "tree" / name)
        note = tmp_path / "tree/sys/module/virtio_pci/notes/.note.gnu.build-id"
        note.chmod(0o600)
        note.write_bytes(notes(module_build_id(affected_module())))
        found = _answer(tmp_path / "tree", capsys)
        assert (found["status"], found["code"]) == ("mitigated", 0)
        assert "while it runs" in str(found["summary"])

    def test_the_devices_of_a_real_sysfs_are_read(self) -> None:
        devices = host.read(host.Root(captured())).devices
        assert devices is not None
        virtio = [device for device in devices if device.bus == "virtio"]
        assert [(d.kind, d.nodes, d.driver, d.mode, d.hotpluggable, d.transport) for d in virtio] == [
            ("disk", ("vda",), "virtio_blk", "modern", True, "pci"),
            ("disk", ("vdb",), "virtio_blk", "legacy", True, "pci"),
        ]


def _core(path: Path, *, machine: int = 62, count: int = 1, table: int = 64, size: int = 56) -> Path:
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<H", head, 18, machine)
    struct.pack_into("<Q", head, 32, table)
    struct.pack_into("<HH", head, 54, size, count)
    load = struct.pack("<IIQQQQQQ", 1, 7, 4096, 0xFFFFFFFF81000000, 0, 8192, 8192, 4096)
    path.write_bytes((bytes(head) + load).ljust(4096, b"\0") + bytes(range(256)) * 16)
    return path


def test_memory_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    core = CoreFile(str(_core(tmp_path / "kcore")))
    image = core.image(0xFFFFFFFF81000000)
    assert image.read(0xFFFFFFFF81000010, 4) == bytes([16, 17, 18, 19])
    assert image.read(0xFFFFFFFF81000FFE, 4) == bytes([254, 255, 0, 0]), "what the file lacks is zero"
    assert len(image.segments) == 1
    core.close()


@pytest.mark.parametrize(
    "options", [{"machine": 3}, {"count": 0}, {"count": 60000}, {"table": 1 << 50}, {"table": 4090 * 4}, {"size": 12}]
)
def test_a_core_file_that_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises((BadInput, DamagedInput)):
        CoreFile(str(_core(tmp_path / "kcore", **options)))


def test_hidden_addresses_are_missing_and_the_way_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 T _stext\n0000000000000000 t vp_del_vqs\t[virtio_pci]\n")
    with pytest.raises(Missing) as caught:
        read_proc_kallsyms(str(path))
    assert "kptr_restrict" in str(caught.value.hint)


def test_symbols_are_sorted_into_their_modules_and_noise_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text(
        "ffffffff81000000 T _stext\nnonsense\nzz T x\nffffffffc0000010 t b\t[m]\nffffffffc0000000 t a\t[m]\n"
    )
    assert read_proc_kallsyms(str(path)) == {
        None: [(0xFFFFFFFF81000000, "T", "_stext")],
        "m": [(0xFFFFFFFFC0000000, "t", "a"), (0xFFFFFFFFC0000010, "t", "b")],
    }
