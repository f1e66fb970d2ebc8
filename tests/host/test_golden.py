# SPDX-License-Identifier: GPL-2.0-or-later
"""What `ejectable check` says of whole machines, word for word, and as documents that their schema accepts.

`EJECTABLE_GOLDEN=write pytest tests/host/test_golden.py` writes the transcripts anew: read the difference.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import msgspec
import pytest

from corpus.archive import cache_folder
from ejectable.cli.app import run
from ejectable.report import document
from tests.host.trees import LEGACY_DISK, MODERN_NIC, RELEASE, Device, Machine, affected_module
from tests.intake.test_files import as_nobody, public_folder
from tests.one import ONE

__all__ = ["public_folder"]

pytestmark = pytest.mark.kernels
GOLDEN = Path(__file__).with_name("golden")
MMIO_DISK = msgspec.structs.replace(LEGACY_DISK, bus="mmio")
MANY = tuple(
    Device(3 + n, 2, "virtio_blk", ("block", f"vd{chr(97 + n)}"), bit_32=n % 3 != 0, pci_id=0x1001) for n in range(20)
)
BALLOON_WITHOUT_FEATURES = Device(8, 5, "virtio_balloon", None, bit_32=None, pci_id=0x1002)


class Case(msgspec.Struct, frozen=True):
    """A machine, and what must come of it."""

    code: int
    status: str
    machine: Callable[[], Machine]
    change: Callable[[Path], None] = lambda _: None


def _affected(**options: object) -> Callable[[], Machine]:
    return lambda: Machine(module=affected_module(), **options)  # type: ignore[arg-type]


def _no_notes(tree: Path) -> None:
    (tree / "sys/kernel/notes").unlink()


def _no_image(tree: Path) -> None:
    shutil.rmtree(tree / "boot")


def _no_module_notes(tree: Path) -> None:
    shutil.rmtree(tree / "sys/module/virtio_pci/notes")


def _no_virtio_bus(tree: Path) -> None:
    shutil.rmtree(tree / "sys/bus/virtio")


CASES = {
    "affected-panic-1": Case(2, "affected", _affected(panic_on_oops=1)),
    "affected-panic-0": Case(2, "affected", _affected(panic_on_oops=0, kdump=0)),
    "affected-many-devices": Case(2, "affected", _affected(devices=MANY)),
    "affected-force-legacy": Case(
        2, "affected", _affected(command_line="root=/dev/vda1 virtio_pci.force_legacy=1 quiet")
    ),
    "affected-without-legacy-device": Case(0, "not_affected", _affected(devices=(MODERN_NIC,))),
    "affected-mode-unknown": Case(3, "unknown", _affected(devices=(MODERN_NIC, BALLOON_WITHOUT_FEATURES))),
    "affected-mmio-only": Case(0, "not_affected", _affected(devices=(MMIO_DISK,))),
    "affected-no-virtio": Case(0, "not_affected", _affected(devices=())),
    "fixed": Case(0, "fixed", lambda: Machine(module=affected_module("fixed"))),
    "container": Case(3, "unknown", lambda: Machine(image=False, running_build_id="ab" * 20, container="docker")),
    "image-gone": Case(3, "unknown", _affected(), _no_image),
    "upgraded-not-booted": Case(
        3, "unknown", lambda: Machine(module=affected_module("fixed"), running_build_id="cd" * 20)
    ),
    "module-upgraded-not-loaded": Case(
        3, "unknown", lambda: Machine(module=affected_module("fixed"), loaded=affected_module())
    ),
    "no-sysfs": Case(3, "unknown", _affected(sysfs=False)),
    "affected-unproven": Case(2, "affected", _affected(version=""), _no_notes),
    "fixed-unproven": Case(3, "unknown", lambda: Machine(module=affected_module("fixed"), version=""), _no_notes),
    "module-unproven": Case(3, "unknown", lambda: Machine(module=affected_module("fixed")), _no_module_notes),
    "affected-module-unproven": Case(2, "affected", _affected(), _no_module_notes),
    "affected-virtio-bus-hidden": Case(2, "affected", _affected(), _no_virtio_bus),
    "affected-newer-installed": Case(2, "affected", _affected(waiting=True)),
    "mounted-image": Case(3, "unknown", _affected(sysfs=False, procfs=False)),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))  # the test kernels stay where they are
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", CASES)
def test_the_transcript_is_as_it_was_agreed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    tree = case.machine().build(tmp_path / "tree")
    case.change(tree)
    code = run(["check", *ONE, "--root", str(tree)])
    shown = capsys.readouterr()
    assert not shown.err
    _as_agreed(name, shown.out)
    assert code == case.code

    assert run(["check", *ONE, "--root", str(tree), "--format", "json"]) == case.code
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, json.loads(document.schema("check")), format_checker=jsonschema.FormatChecker())
    assert answer["status"] == case.status
    assert answer["summary"] in " ".join(line.strip() for line in shown.out.splitlines()[:2])


def _as_agreed(name: str, shown: str) -> None:
    lines = shown.splitlines()
    assert len(lines) < 24, "with the prompt below it, it fits a screen"
    assert max(map(len, lines)) <= 80
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("EJECTABLE_GOLDEN") == "write":
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_an_affected_machine_names_device_kernel_and_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    run(["check", *ONE, "--root", str(tree), "--format", "json", "--explain"])
    answer = json.loads(capsys.readouterr().out)
    disk, nic = answer["devices"]
    assert (disk["mode"], disk["unplug"], nic["mode"], nic["unplug"]) == ("legacy", "would_oops", "modern", "safe")
    assert answer["outcome"] == {"panic_on_oops": 1, "effect": "panic", "reboot_after_s": 10, "kdump": True}
    kernel = answer["kernel"]
    assert (kernel["release"], kernel["virtio_pci"], kernel["running"]) == (RELEASE, "module", True)
    finding = kernel["findings"][0]
    assert finding["status"] == "affected"
    assert "executed" in {item["kind"] for item in finding["evidence"]}
    assert finding["explanation"]


def test_verbose_shows_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Machine(module=affected_module(), devices=MANY).build(tmp_path / "tree")
    run(["check", *ONE, "--root", str(tree), "--verbose"])
    shown = capsys.readouterr().out
    assert all(f"virtio{number} " in shown for number in range(len(MANY)))
    assert "Evidence" in shown
    assert "build-id" in shown


def test_quiet_is_the_answer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 2
    assert capsys.readouterr().out.startswith("AFFECTED  Unplugging vdb would panic this machine")
    assert run(["check", *ONE, "--root", str(tree), "--quiet", "--exit-zero"]) == 0


def test_a_kept_verdict_gives_the_same_answer_and_a_damaged_one_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")

    def answer(*options: str) -> str:
        assert run(["check", *ONE, "--root", str(tree), *options]) == 2
        return capsys.readouterr().out

    first = answer()
    (kept,) = (tmp_path / "cache/ejectable/verdicts").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as patch:
        # Were the kernel read again, this would be noticed.
        patch.setattr("ejectable.assess.installed.open_image", lambda *_: pytest.fail("the verdict was not kept"))
        assert answer() == first
    good = kept.read_bytes()
    for damage in (b"", b"{", good[:-40], good.replace(b'"affected"', b'"harmless"'), b"\xff" * 64, b"[" * 100_000):
        kept.write_bytes(damage)
        assert answer() == first
    # Somebody else could have written it: it does not count, whatever it says.
    kept.write_bytes(good.replace(b'"status":"affected"', b'"status":"fixed"'))
    kept.chmod(0o666)
    assert answer() == first
    kept.unlink()
    assert answer("--no-cache") == first
    assert not kept.exists()


def test_a_changed_kernel_is_not_answered_from_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    assert run(["check", *ONE, "--root", str(tree)]) == 2
    (module,) = (tree / "usr/lib/modules").rglob("virtio_pci.ko")
    module.write_bytes(affected_module("fixed").read_bytes())
    assert run(["check", *ONE, "--root", str(tree)]) == 3, "the file is not the module that is loaded any more"
    capsys.readouterr()


def test_without_root_it_says_what_root_would_add(
    public_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(public_folder / "cache"))
    tree = Machine(module=affected_module()).build(public_folder / "tree")
    # Ubuntu keeps /boot/vmlinuz-* for root's eyes.
    image = tree / f"boot/vmlinuz-{RELEASE}"
    image.chmod(0o600 if os.geteuid() == 0 else 0)
    with as_nobody():
        code = run(["check", *ONE, "--root", str(tree)])
    _as_agreed("without-root", capsys.readouterr().out)
    assert code == 3


def test_a_damaged_image_is_a_note_not_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    image = tree / f"boot/vmlinuz-{RELEASE}"
    image.write_bytes(image.read_bytes()[: 1 << 20])
    assert run(["check", *ONE, "--root", str(tree)]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("UNKNOWN")
    assert "could not be judged" in shown.out
