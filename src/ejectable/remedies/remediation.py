# SPDX-License-Identifier: GPL-2.0-or-later
"""What every remedy can do: say whether it helps here, be carried out, be taken back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from ejectable.errors import WrongUsage
from ejectable.model import Applied, Remedy, Status
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import Reach

if TYPE_CHECKING:
    from ejectable.remedies.changes import Changes

__all__ = ["Remediation", "Request", "undone"]


class Request(msgspec.Struct, frozen=True):
    """What was asked for beside the remedy's name; each remedy uses what concerns it."""

    target: str | None = None  # source-patch: the tree
    persist: bool = False  # live: also after a reboot, through DKMS
    build: str | None = None  # source-patch: build virtio_pci.ko against these headers
    to: str | None = None  # instance-type: the type to move to
    instance: str | None = None  # instance-type, detach-while-stopped: instead of what the metadata service says
    region: str | None = None
    device: str | None = None  # detach-while-stopped: the node, the virtio device or the cloud's id of the disk


class Remediation(ABC):
    """One remedy. Planning changes nothing and never raises for a machine that it cannot help: it says why.

    `plan` must work without root and without network, and say what it could not ask.
    """

    name: ClassVar[str]
    durable: ClassVar[bool]  # it removes the danger, rather than living with it
    on_demand: ClassVar[bool] = False  # for a need of the moment: never recommended by itself
    survives_reboot: ClassVar[bool] = True  # once done, it need not be followed by another one
    applies: ClassVar[bool] = True  # `--apply` does it; else a person (or an API) has to
    # "live": only the machine that this runs on; "tree": a mounted image as well; "anywhere": no machine is touched.
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "live"
    needs_root: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()  # the fields of a request that it uses
    reach: ClassVar[Reach] = Reach()  # the steps that it takes and the files that it changes; no others are recorded

    @abstractmethod
    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Whether it helps here and what it would take. State `possible` where it does: who ranks comes later."""

    def status(self, situation: Situation, request: Request) -> Status:
        """The word for what is to be remedied: the machine's, unless the remedy is for something else (a tree)."""
        del request
        return situation.assessment.status

    @abstractmethod
    def apply(self, situation: Situation, request: Request, changes: "Changes") -> Applied:
        """Carry it out, and check that it helped. Everything is changed through `changes`, which takes it back if
        this raises. Raises `Missing`, `BadInput` or `WrongUsage` with what is in the way.
        """

    def undo(self, situation: Situation, request: Request, changes: "Changes") -> Applied:
        """Take it back; by default what the record of the change says."""
        del situation, request
        return undone(self.name, changes.undo(self.name), changes.left)

    def check_options(self, request: Request) -> None:
        """Raise `WrongUsage` for what was asked for and is another remedy's: silently left out, it would mislead."""
        for name in request.__struct_fields__:
            if getattr(request, name) and name not in self.options:
                what = f"--{name}" if name != "target" else repr(request.target)
                own = ", ".join("a tree" if one == "target" else f"--{one}" for one in self.options)
                hint = f"It takes: {own or 'no option of its own'}."
                raise WrongUsage(f"`{self.name}` takes no {what}.", hint=hint)

    def impossible(self, why: str, *, commands: Sequence[str] = (), details: Sequence[str] = ()) -> Remedy:
        """The plan line of a remedy that does not help here."""
        return Remedy(self.name, "impossible", why, tuple(commands), verified=False, details=tuple(details))


def undone(name: str, said: Sequence[str], left: Sequence[str] = ()) -> Applied:
    """What to say of a change that was taken back; raises `WrongUsage` where there was none.

    `left` is what could not be brought back, in sentences: then it is not verified.
    """
    if not said:
        raise WrongUsage(f"There is nothing to undo: no change of `{name}` is on record.")
    why = " ".join(["Not everything is as it was before.", *left]) if left else "Everything is as it was before."
    return Applied(name, tuple(said), verified=not left, why=why)
