# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan over all remedies, and `--apply` and `--undo` of one: with the same precautions for each."""

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from ejectable import host
from ejectable.advisories import Workaround
from ejectable.errors import EjectableError, Missing, WrongUsage
from ejectable.model import Applied, Remedy, Status
from ejectable.remedies.by_hand import ByHand
from ejectable.remedies.changes import Changes, interrupted
from ejectable.remedies.records import Records
from ejectable.remedies.registry import REMEDIES, remediation
from ejectable.remedies.remediation import Remediation, Request, undone
from ejectable.remedies.situation import Situation

__all__ = ["apply", "left_open", "named", "plan", "status", "undo"]


def plan(situation: Situation, request: Request, names: Sequence[str] = ()) -> tuple[Remedy, ...]:
    """The plan: every remedy (or those named), what helps first. Changes nothing.

    Of those that are possible, the first one that removes the danger is `recommended`, and with it the first one to
    live with meanwhile. Where nothing is needed, nothing is recommended.
    """
    chosen = [named(situation, name) for name in names] or _all(situation)
    lines = [(one, _planned(one, _part(situation, one.name), request)) for one in chosen]
    if not names and situation.needed:
        lines = _ranked(lines)
    order = ("done", "recommended", "possible", "impossible")
    return tuple(line for _, line in sorted(lines, key=lambda pair: order.index(pair[1].state)))


def named(situation: Situation, name: str) -> Remediation:
    """The remedy of this name: one of the tool's, or a workaround of an advisory's. Raises `WrongUsage`."""
    return next((one for one in _by_hand(situation) if one.name == name), None) or remediation(name)


def _all(situation: Situation) -> list[Remediation]:
    """Those of the tool that help any advisory, then those of the advisories that something has to be done about."""
    needed = situation.concerned
    return [
        *(remediation(name) for name in REMEDIES if _helped_by(situation, name)),
        *(one for one in _by_hand(situation) if one.advisory.id in needed),
    ]


def _by_hand(situation: Situation) -> list[ByHand]:
    return [
        ByHand(advisory, one)
        for advisory in situation.advisories.values()
        for one in advisory.remedies
        if isinstance(one, Workaround)
    ]


def _helped_by(situation: Situation, name: str) -> frozenset[str]:
    """The advisories that this remedy is for."""
    return frozenset(
        advisory.id
        for advisory in situation.advisories.values()
        if any(name == (one.name if isinstance(one, Workaround) else one) for one in advisory.remedies)
    )


def _part(situation: Situation, name: str) -> Situation:
    """The machine, asked about the advisories that this remedy is for; about all where it is for none of them."""
    ids = _helped_by(situation, name)
    return situation.about(ids) if ids else situation


def _planned(one: Remediation, situation: Situation, request: Request) -> Remedy:
    if one.where == "live" and not situation.root.live and one.applies:
        return one.impossible("It works on a machine that runs, and this is a tree: run `ejectable fix` there.")
    try:
        return one.plan(situation, request)
    except EjectableError as error:
        return one.impossible(" ".join(filter(None, (error.message, error.hint))))


def _ranked(lines: list[tuple[Remediation, Remedy]]) -> list[tuple[Remediation, Remedy]]:
    given = {one.durable for one, line in lines if line.state == "done" and one.survives_reboot}
    ranked = []
    for one, line in lines:
        best = line
        if line.state == "possible" and not one.on_demand and one.durable not in given:
            given.add(one.durable)
            best = msgspec.structs.replace(line, state="recommended")
        ranked.append((one, best))
    return ranked


def apply(situation: Situation, name: str, request: Request) -> Applied:
    """Carry a remedy out and check that it helped; what fails half-way is undone, and the error says so.

    Raises `Missing` for a right or a tool that lacks, `WrongUsage` for a remedy that is for people or does not work
    on a tree.
    """
    one = _ready(situation, name)
    with (
        _ending_softly(),
        Changes.begin(_root(one, situation), name, undo=_undo_command(situation, name, request)) as changes,
    ):
        done = one.apply(_part(situation, name), request, changes)
    return msgspec.structs.replace(done, undo=_undo_command(situation, name, request) if done.undo else None)


def undo(situation: Situation, name: str, request: Request) -> Applied:
    """Take a remedy back; raises `WrongUsage` where it was never carried out."""
    one = _ready(situation, name)
    with _ending_softly(), Changes.begin(_root(one, situation), name, undo="none") as changes:
        if changes.done:  # what an interrupted run had left was taken back already
            return undone(name, changes.done, changes.left)
        return one.undo(_part(situation, name), request, changes)


def status(situation: Situation, name: str | None, request: Request) -> Status:
    """The word that the plan is about: the machine's, or that of what a named remedy was pointed at."""
    return named(situation, name).status(situation, request) if name else situation.assessment.status


def left_open(situation: Situation) -> tuple[str, ...]:
    """Sentences about changes that were begun and did not end, and about records that are not read."""
    try:
        records = Records(situation.root)
        found, old = interrupted(situation.root), records.outdated()
    except EjectableError as error:
        return (" ".join(filter(None, (error.message, error.hint))),)
    outdated = tuple(
        f"{path} was recorded by an earlier version, which recorded commands: nothing of it is run or taken back."
        for path in old
    )
    known = [record for record in found if record.remedy in REMEDIES]  # what cannot be undone by a name is not offered
    return outdated + tuple(
        f"A change was interrupted (`fix {record.remedy}`, begun {record.started}): "
        f"`{_command(situation, record.remedy, '--undo')}` takes it back."
        for record in known
    )


def _root(one: Remediation, situation: Situation) -> host.Root:
    """What the changed paths start from: a source tree lies where the user says, whatever machine is planned for."""
    return host.Root() if one.where == "anywhere" else situation.root


def _ready(situation: Situation, name: str) -> Remediation:
    one = named(situation, name)
    if not one.applies:
        raise WrongUsage(f"`{name}` is for people to carry out.", hint=f"`ejectable fix {name}` shows the commands.")
    if one.where == "live" and not situation.root.live:
        raise WrongUsage(f"`{name}` works on the machine it runs on only.", hint="Leave --root away, over there.")
    if one.needs_root and os.geteuid() != 0:
        raise Missing(f"`{name}` changes this system: that takes root.", hint=_command(situation, name, "--apply"))
    return one


def _undo_command(situation: Situation, name: str, request: Request) -> str:
    target = [str(Path(request.target).absolute())] if request.target else []
    return _command(situation, name, *target, "--undo")


def _command(situation: Situation, name: str, *words: str) -> str:
    """`ejectable fix NAME ...` for this machine or tree, to paste."""
    sudo = ["sudo"] if remediation(name).needs_root else []
    tree = [] if situation.root.live or remediation(name).where == "anywhere" else ["--root", str(situation.root.path)]
    return shlex.join([*sudo, "ejectable", "fix", name, *words, *tree])


@contextmanager
def _ending_softly() -> Iterator[None]:
    """Undo the change on SIGTERM and SIGHUP, as on Ctrl-C; a second signal does not stop the undoing."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in kept:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    kept = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            kept[number] = signal.signal(number, end)
    except ValueError:  # not in the main thread: whoever runs us there has the signals
        kept = {}
    try:
        yield
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)
