# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody outside `advisories/` names a defect, its functions, or the way in which its devices are driven.

What is left over stands here with its reason. A line goes when its words do, and there is no way back.
"""

import re
from pathlib import Path

import pytest

from ejectable.advisories import registry

__all__: list[str] = []

SOURCE = Path(__file__).resolve().parent.parent / "src" / "ejectable"
FILES = sorted(path for path in SOURCE.rglob("*")
               if path.is_file() and path.suffix in (".py", ".toml", ".c", ".h", ".sh", ".service", ".timer")
               and "advisories" not in path.relative_to(SOURCE).parts)  # fmt: skip
THE_DEFECT = re.compile(r"CVE-2024-42134|cve_2024_42134|vp_del_vqs|is_avq")
ITS_DEVICES = re.compile(r"virtio_pci|legacy", re.IGNORECASE)

# File or folder → why it still names that defect.
NAMES_THE_DEFECT = {
    "remedies/live": "is the repair of that one defect in the running kernel: a module, and the proof that it may load",
}
# File or folder → why it still speaks of virtio_pci or of legacy devices.
NAMES_ITS_DEVICES = {
    "remedies/live": "see above",
    "remedies/force_legacy.py": "is the remedy that takes force_legacy away; it is that parameter of virtio_pci",
    "remedies/legacy_places.py": "finds where that parameter is set",
    "remedies/boot_images.py": "finds that parameter in boot images",
    "remedies/transitional.py": "reads by its PCI capabilities whether a device could be driven as modern",
    "remedies/registry.py": "has the name of that remedy",
    "remedies/remediation.py": "says what --build builds",
    "remedies/instance_type.py": "moves an instance to where devices are modern",
    "remedies/ecs/proof.py": "reads from a started instance how its devices are driven",
    "remedies/ecs/messages.py": "says so",
    "report/topics/remedies.toml": "explains those remedies",
    "report/topics/words.toml": "explains how a device is driven: the virtio specification's own words",
    "report/topics/kernel.toml": "explains the same of kernels",
    "report/kernel.py": "prints the key `virtio_pci` of the document, which is older than `modules`",
    "cli/fix.py": "lists the remedies in its help",
    "cli/lab.py": "lists the modes of a device in its help: the virtio specification's own words",
    "cli/explain.py": "has a word of the specification among its examples",
    "cli/kernel.py": "has a module's file among its examples",
    "model.py": "has `mode` and `virtio_pci`, keys of documents that scripts rely on",
    "assess/kernels.py": "fills in the key `virtio_pci` of the document",
    "host/devices.py": "tells how a virtio device is driven, for `mode`",
    "host/policy.py": "finds where force_legacy is asked for",
    "host/running.py": "reads that parameter",
    "host/facts.py": "keeps both",
    "kernel/module.py": "has it as an example of a name",
    "kernel/machine/core.py": "has it as an example of a type",
    "kernel/program.py": "has it as an example of a type",
    "kernel/archive_kernels.py": "has it as an example of a file",
    "experiment/scene.py": "has it as an example of a type",
    "lab/machines.py": "gives QEMU its properties disable-legacy and disable-modern",
    "lab/kernels.py": "finds the transport's module among those given",
    "lab/case.py": "has the modes of the lab's contract",
    "lab/attribution.py": "knows the removal's functions of all virtio drivers",
    "lab/guest.py": "loads the transport's module in the guest",
    "lab/rig.py": "sees in the guest how a device is driven",
    "lab/outcome.py": "keeps that",
    "lab/matrix.py": "rules out what a kernel cannot drive",
    "lab/features.py": "knows the options that the lab needs of a kernel",
    "lab/request.py": "has the first of the modes",
    "crash/cause.py": "knows the bus's functions in a trace",
    "crash/context.py": "knows the bus's functions in a trace",
    "crash/scan.py": "knows the bus's functions in a trace",
    # Other things of the same name.
    "intake": "unpacks LZ4's legacy frames; and has a module's file as an example",
    "kernel/formats": "reads legacy uImages, LZ4's legacy frames, and arm64's legacy headers",
}


@pytest.mark.parametrize(
    ("words", "left"), [(THE_DEFECT, NAMES_THE_DEFECT), (ITS_DEVICES, NAMES_ITS_DEVICES)], ids=["defect", "devices"]
)
def test_no_room_names_a_defect_but_those_that_still_do(words: re.Pattern[str], left: dict[str, str]) -> None:
    naming = {str(path.relative_to(SOURCE)) for path in FILES
              if words.search(path.read_text(encoding="utf-8")) or words.search(path.name)}  # fmt: skip
    allowed = {name for name in naming if any(name == one or name.startswith(f"{one}/") for one in left)}
    assert naming == allowed
    gone = [one for one in left if not any(name == one or name.startswith(f"{one}/") for name in naming)]
    assert not gone, "they no longer do: take them off the list"


def test_no_room_names_any_other_defect() -> None:
    names = [name for advisory in registry().values() for name in advisory.names]
    words = re.compile("|".join(map(re.escape, names)))
    naming = [str(path.relative_to(SOURCE)) for path in FILES if words.search(path.read_text(encoding="utf-8"))]
    assert [name for name in naming if not any(name.startswith(one) for one in NAMES_THE_DEFECT)] == []


def test_only_the_repair_of_a_defect_imports_its_folder() -> None:
    folders = [advisory.package.rpartition(".")[2] for advisory in registry().values()]
    words = re.compile(rf"advisories\.(?:{'|'.join(folders)})\b")
    importing = [str(path.relative_to(SOURCE)) for path in FILES if words.search(path.read_text(encoding="utf-8"))]
    assert importing == ["remedies/live/evidence.py"]
