# SPDX-License-Identifier: GPL-2.0-or-later
"""One known defect: the parts that an advisory declares, and what the rest of the house asks of it.

    class WrongIndex(Advisory):
        id = "CVE-2026-64457"
        title = "removing a virtio device with a nameless queue reads a NULL record"
        code = CodeUnder(functions=("vp_find_vqs", "vp_del_vqs"), module="virtio_pci", option="CONFIG_VIRTIO_PCI")
        operations = always(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.SUSPEND)

        def experiment(self, bench): ...          # a pair of runs that must differ → bench.decide(...)
        def exposure(self, device, finding): ...  # meets(...), spared(...), unsure(...), or None: not such a device

        signature = Signature(...)

    ADVISORY = WrongIndex()

The folder of the class holds `facts.toml` (see `facts`). What stands below as `None` is an optional part; a part that
is heavy is a property that imports it.
"""

import importlib
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ejectable.advisories.exposure import Meeting, Reach, exposures
from ejectable.advisories.facts import Facts, load_facts
from ejectable.advisories.recognition import Recognition
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Recogniser
from ejectable.advisories.source_fix import SourceFix
from ejectable.advisories.terms import Terms
from ejectable.model import Device, Event, Evidence, Exposure, Finding, Status

if TYPE_CHECKING:
    from ejectable.advisories.code import CodeUnder
    from ejectable.advisories.live_part import LivePart
    from ejectable.experiment import Bench, Result
    from ejectable.host import Facts as Facts_of_host
    from ejectable.kernel.config import Config
    from ejectable.kernel.kernel import Kernel
    from ejectable.kernel.program import Program

__all__ = ["Advisory"]

# The remedies of any defect of a kernel.
USUAL = ("upgrade", "panic-policy")


class Advisory(ABC):
    """One known defect. Raises `TypeError` where a declared part is missing."""

    id: ClassVar[str]  # the CVE where there is one, else a name
    title: ClassVar[str]  # one line, no capital in front
    code: ClassVar["CodeUnder"]
    operations: ClassVar[tuple[Meeting, ...]]  # what meets the defect: `always(...)`, `race(...)`
    remedies: ClassVar[tuple[str | Workaround, ...]] = USUAL  # names of `ejectable fix`, and what is this defect's own
    # Whether it is asked about where nobody names an advisory. Until its verdicts were held against every kernel of the
    # corpus it is asked by name alone: `--advisory ID`.
    proven: ClassVar[bool] = True

    def __init__(self) -> None:
        missing = [name for name in ("id", "title", "code", "operations") if not hasattr(type(self), name)]
        if missing:
            raise TypeError(f"{type(self).__name__} does not declare {', '.join(missing)}")

    def __repr__(self) -> str:
        return f"<Advisory {self.id}: {self.title}>"

    # What an advisory must say

    @abstractmethod
    def experiment(self, bench: "Bench") -> "Result":
        """Run the code on the bench, and decide. `Missing` where the kernel lacks a type or a function of it."""

    @abstractmethod
    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """Whether this device comes to the faulty code; `None` where the defect is about no such device.

        `finding` is what is true of the kernel: evidence may carry claims that tell variants of the defect apart.
        """

    # What it may say

    @property
    def signature(self) -> Recogniser | None:
        """What its crash looks like; `None`: a crash of it is not told from others."""
        return None

    @property
    def scenario(self) -> Scenario | None:
        """What a guest must be like to show it; `None`: no guest can."""
        return None

    @property
    def live(self) -> Any | None:
        """How a repair of the running kernel is seen in its memory; `None`: there is no such repair."""
        return None

    @property
    def live_part(self) -> "LivePart | None":
        """How it is repaired in a kernel that runs, at one function and as data; `None`: it is not."""
        return None

    @property
    def source_fix(self) -> SourceFix | None:
        """How its source is read and repaired; `None`: it is not."""
        return None

    def opinions(self, program: "Program", result: "Result") -> Sequence[Evidence]:  # noqa: ARG002
        """Evidence of other kinds than execution, independent of it: disassembly, types, symbols."""
        return ()

    def configured(self, options: "Config | None", program: "Program | None") -> Evidence | None:
        """What the configuration says; `program` is the piece of kernel that has the code, if one has."""
        from ejectable.advisories.code import configured

        return configured(options, program, self.code)

    def read_source(self, tree: Path) -> Evidence | None:  # noqa: ARG002
        """What a source tree says; `None` where it has none of the files, or they cannot be judged for this defect."""
        return None

    def explain(self, program: "Program", result: "Result") -> Sequence[str]:  # noqa: ARG002
        """The story of the run, for `--explain`; by default the bench's own."""
        return result.story

    def concerns(self, device: Device) -> bool:
        """Whether the module that has the code, if it is one, is at work for this device."""
        nothing = Finding(self.id, Status.UNKNOWN, None, "", (), conflict=False)
        return device.driver is not None and self.exposure(device, nothing) is not None

    def refutes(self, device: Device, finding: Finding) -> str | None:  # noqa: ARG002
        """What a device shows that cannot be where this safe word of its kernel is true; `None`: nothing."""
        return None

    def steps(self, facts: "Facts_of_host") -> Sequence[str]:  # noqa: ARG002
        """What can be done about it on this very machine, in sentences, beside the remedies of `ejectable fix`."""
        return ()

    # What the house asks

    @property
    def names(self) -> tuple[str, ...]:
        """The id, and the short name where there is one: what `--advisory` takes, beside the title's beginning."""
        return tuple(filter(None, (self.id, self.facts.name)))

    @property
    def may(self) -> bool:
        """Whether what is executed is the invariant of a race: the words then say "may"."""
        return all(one.likelihood == "race" for one in self.operations)

    @property
    def package(self) -> str:
        """The package of the folder that it is in."""
        spec = sys.modules[type(self).__module__].__spec__
        return spec.parent or spec.name if spec is not None else type(self).__module__

    @property
    def places(self) -> dict[str, str]:
        """The modules that judging may ask for, each with its usual folder below lib/modules/RELEASE."""
        folder = f"kernel/{self.facts.file.rpartition('/')[0]}"
        names = (*((self.code.module,) if self.code.module else ()), *self.code.also)
        return {name: folder if name == self.code.module else "" for name in names}

    @cached_property
    def facts(self) -> Facts:
        """Commits, versions, fixed packages, references, look-alikes; each with its source."""
        return load_facts(self.package)

    @cached_property
    def terms(self) -> Terms:
        """The defect's story and its terms, in words."""
        return Terms(self.facts.topics, self.facts.story)

    def probe(self, kernel: "Kernel") -> Finding:
        """What this defect's evidence says of one kernel. Does not raise for a kernel that is damaged: it says so."""
        from ejectable.advisories.probe import probe

        return probe(self, kernel)

    def exposures(self, device: Device, finding: Finding) -> tuple[Reach, tuple[Exposure, ...]] | None:
        """Whether the device comes to the code, and what each operation meets; `None`: it is no such device."""
        reach = self.exposure(device, finding)
        return None if reach is None else (reach, exposures(reach, finding, self.operations))

    def recognise(self, event: Event, beside: Sequence[Event] = ()) -> Recognition | None:
        """What its signature says of an event, `None` where it has none. `beside`: the others of the same log."""
        if self.signature is None:
            return None
        found = self.signature.recognise(event, beside)
        return msgspec.structs.replace(found, advisory=self.id) if found.status is Status.AFFECTED else found

    def prepare(self) -> None:
        """Import and read all that judging a kernel takes: a confined process can open no file of ours."""
        from ejectable.advisories import probe

        _ = self.facts, probe
        for part in pkgutil.iter_modules(sys.modules[self.package].__path__, f"{self.package}."):
            importlib.import_module(part.name)
