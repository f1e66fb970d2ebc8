# SPDX-License-Identifier: GPL-2.0-or-later
"""Events and advisories: which crash is which defect, and what the kernel that crashed says to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ejectable.advisories.first_good import first_good
from ejectable.assess.logs import Unreadable, follow_log, read_logs
from ejectable.assess.misread import put_right, symbols
from ejectable.crash.blame import named
from ejectable.crash.inputs import Source
from ejectable.errors import Ended
from ejectable.intake import DEFAULT_LIMITS, Limits
from ejectable.model import SAFE, Doubt, DoubtKind, Event, Finding, Judgement, Status, worst

if TYPE_CHECKING:
    from ejectable.advisories import Advisory
    from ejectable.advisories.recognition import Recognition
    from ejectable.kernel.kernel import Kernel
    from ejectable.model import Frame

__all__ = ["Build", "Reading", "Unreadable", "compare", "doubt_of_end", "follow_all", "join", "judge", "read_all"]

ENOUGH = 3  # functions whose sizes must agree before two builds are called the same


class Build(msgspec.Struct, frozen=True):
    """A kernel held against a crash: how many function sizes of the trace agree, and what was found in its code."""

    path: str
    release: str | None
    agree: int
    differ: int
    findings: tuple[Finding, ...]
    blamed_differs: bool = False  # the very function to blame has another size

    @property
    def same(self) -> bool | None:
        """Whether it is the build that crashed; `None` where the trace has too few functions to tell.

        A kernel may be right and a module of it another: what is said of the function to blame must be true of it.
        """
        if self.blamed_differs or self.differ > self.agree // 10:
            return False
        return True if self.agree >= ENOUGH else None


class Reading(msgspec.Struct, frozen=True):
    """All that was read: the logs' names, the events, what could not be read."""

    sources: tuple[str, ...]
    events: tuple[Event, ...]
    judgements: tuple[Judgement, ...]  # of the events, one for one
    builds: tuple[Build, ...] = ()
    left_out: int = 0  # repetitions of events that are listed
    errors: tuple[Unreadable, ...] = ()
    suspicious: tuple[Doubt, ...] = ()  # what speaks of a crash that could not be read
    others: tuple[Unreadable, ...] = ()  # files of a folder or an archive that are no logs

    @property
    def status(self) -> Status:
        """What it adds up to."""
        words = [judgement.status for judgement in self.judgements]
        if self.suspicious or (self.errors and not words):
            words.append(Status.UNKNOWN)
        return worst(words) if words else Status.NOT_AFFECTED

    @property
    def pairs(self) -> tuple[tuple[Event, Judgement], ...]:
        """Each event with what is said of it."""
        return tuple(zip(self.events, self.judgements, strict=True))


def read_all(
    found: Sequence[Source],
    advisories: Mapping[str, "Advisory"],
    *,
    kernel: str | None = None,
    jobs: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    done: Callable[[int], None] | None = None,
) -> Reading:
    """Read all logs, several at once with `jobs`, and judge every event. `done` gets the bytes read."""
    events: list[Event] = []
    judgements: list[Judgement] = []
    suspicious: list[Doubt] = []
    errors: list[Unreadable] = []
    left_out = 0
    names: list[str] = []
    others: list[Unreadable] = []
    for source, logs, ended in read_logs(
        found,
        partial(_judgements, advisories=advisories),
        partial(_matters, advisories=advisories),
        jobs=jobs,
        limits=limits,
        done=done,
    ):
        for one in logs:
            if isinstance(one.found, Unreadable):
                beside = source.found or one.name != source.name  # in a folder or an archive, not every file is a log
                (others if one.found.no_log and beside else errors).append(one.found)
                continue
            names.append(one.name)
            if one.found.damaged:
                errors.append(Unreadable(one.name, one.found.damaged, None, 65))
            left_out += one.found.left_out
            events += one.found.events
            judgements += one.judgements
            if one.found.suspicious is not None:
                suspicious.append(one.found.suspicious)
        if isinstance(ended, Ended):
            names.append(source.name)
            suspicious.append(doubt_of_end(source.name, ended))
        elif ended is None and not logs:
            detail = f"{source.name}: nothing in it could be read as a log."
            suspicious.append(Doubt(DoubtKind.UNREADABLE, source.name, detail))
        elif ended is not None:
            errors.append(Unreadable(source.name, ended.message, ended.hint, ended.exit_code))
    if not names and others and not errors:
        errors.append(others.pop(0))
    suspicious += [
        Doubt(DoubtKind.UNREADABLE, one.source, "A memory dump shows that a kernel crashed, and its log was not read.")
        for one in others
        if one.holds_one
    ]
    builds: tuple[Build, ...] = ()
    if kernel is not None:
        try:
            builds, judgements = _with_kernel(events, judgements, kernel, advisories, limits)
        except Ended as ended:
            suspicious.append(doubt_of_end(kernel, ended))
    return Reading(
        tuple(names),
        tuple(events),
        tuple(judgements),
        builds,
        left_out,
        tuple(errors),
        tuple(suspicious),
        tuple(others),
    )


def doubt_of_end(name: str, ended: Ended) -> Doubt:
    """The doubt that is left where the process that read a file came to a bad end."""
    return Doubt(DoubtKind.UNREADABLE, name, f"{name}: {ended.message} {ended.hint or ''}".strip())


def follow_all(path: str, advisories: Mapping[str, "Advisory"]) -> Iterator[tuple[Event, Judgement]]:
    """Each event of a log that grows, when it is complete, and what is said of it. Raises `Ended` where its process
    came to a bad end.
    """
    return follow_log(path, partial(judge, advisories=advisories), partial(_matters, advisories=advisories))


def _with_kernel(
    events: Sequence[Event],
    judgements: Sequence[Judgement],
    path: str,
    advisories: Mapping[str, "Advisory"],
    limits: Limits,
) -> tuple[tuple[Build, ...], list[Judgement]]:
    """Hold the kernels in a file against the event that matters most, and judge the matching events by the best."""
    from ejectable.assess.confined import confined
    from ejectable.kernel.open import Kernel, open_kernels

    subject = next((event for event, said in zip(events, judgements, strict=True) if said.advisory), None)
    subject = subject or next((event for event in events if event.trace), None)
    if subject is None:
        return (), list(judgements)

    def compared() -> tuple[Build, ...]:
        kernels = (kernel for kernel in open_kernels(path, limits=limits) if isinstance(kernel, Kernel))
        return tuple(compare(subject, kernel, advisories) for kernel in kernels)

    builds = confined(compared, (path,), limits, into=tuple[Build, ...], ids=tuple(advisories))
    if not builds:
        return (), list(judgements)
    best = max(builds, key=lambda build: (build.same is True, build.agree - build.differ))
    return (best,), [join(said, best) if said.advisory else said for said in judgements]


def judge(event: Event, advisories: Mapping[str, "Advisory"], beside: Sequence[Event] = ()) -> Judgement:
    """What the advisories say of an event; `unknown` where one would say more if a name was only typed wrong.

    `beside` are the other events of the same log: a deadlock shows as two tasks.
    """
    said = _judge(event, advisories, beside)
    if said.status not in SAFE or not event.trace:
        return said
    known = dict.fromkeys(
        name for advisory in advisories.values() if advisory.signature is not None for name in symbols(advisory)
    )
    right, replaced = put_right(event, known)
    if not replaced:
        return said
    then = _judge(right, advisories, beside)
    if then.status in SAFE and then.known_as in (None, said.known_as):
        return said
    wrong, name = next(iter(replaced.items()))
    why = f"“{wrong}” may be {name}, typed or read wrong; it would be {then.advisory or then.known_as or 'undecided'}"
    if then.status in SAFE:
        return msgspec.structs.replace(said, why=f"{said.why}; {why} then")
    doubt = Doubt(DoubtKind.AMBIGUOUS, f"{event.source}:{event.line}", f"{why} then.")
    return Judgement(Status.UNKNOWN, why=f"{why} then", doubts=(*event.doubts, doubt))


def _judge(event: Event, advisories: Mapping[str, "Advisory"], beside: Sequence[Event]) -> Judgement:
    """The worst of what the advisories say; of those that say the same, the one that says most."""
    found: list[Recognition] = []
    for advisory in advisories.values():
        said = advisory.recognise(event, beside)
        if said is not None:
            found.append(said)
    if not found:
        return Judgement(Status.NOT_AFFECTED)
    status = worst(one.status for one in found)
    chosen = max(
        (one for one in found if one.status is status), key=lambda one: (one.confidence, one.known_as is not None)
    )
    own = advisories.get(chosen.advisory or "")
    return Judgement(
        status,
        advisory=chosen.advisory,
        confidence=chosen.confidence,
        why=chosen.why,
        known_as=chosen.known_as,
        known_fix=chosen.fix if own is None else first_good(own.facts, event.kernel),
        doubts=chosen.doubts,
    )


def _judgements(events: Sequence[Event], advisories: Mapping[str, "Advisory"]) -> tuple[Judgement, ...]:
    """What is said of each event of one log."""
    return tuple(judge(event, advisories, events) for event in events)


def _matters(event: Event, advisories: Mapping[str, "Advisory"]) -> bool:
    """Whether one of the advisories says something of an event: so that no bound leaves it out."""
    return judge(event, advisories).status not in SAFE


def compare(event: Event, kernel: "Kernel", advisories: Mapping[str, "Advisory"]) -> Build:
    """Hold a kernel against a crash. Raises `EjectableError` where the kernel cannot be read."""
    agree = differ = 0
    blamed_differs = False
    for function, module, size in _sizes(event.trace):
        program = kernel.module(module) if module else kernel.vmlinux
        if program is None:
            continue
        found = {symbol.size for symbol in program.symbols.variants(function) if symbol.size}
        if not found:
            continue
        # Sizes come from the distance to the next symbol, which alignment may stretch by a few bytes.
        if any(abs(one - size) < 16 for one in found):
            agree += 1
        else:
            differ += 1
            blamed_differs = blamed_differs or named(function) == event.function
    findings = tuple(advisory.probe(kernel) for advisory in advisories.values())
    return Build(kernel.name, kernel.release, agree, differ, findings, blamed_differs)


def _sizes(trace: Sequence["Frame"]) -> dict[tuple[str, str | None, int], None]:
    return {(f.function, f.module, f.size): None for f in trace if f.size and f.reliable}


def join(said: Judgement, build: Build) -> Judgement:
    """The judgement, with what the kernel's own code adds to the confidence, or takes from it."""
    finding = next((one for one in build.findings if one.advisory == said.advisory), None)
    if finding is None:
        return said
    where = build.release or build.path
    counted = f"{build.agree} of {build.agree + build.differ} function sizes in the trace are those of {where}"
    if build.same is False:
        return _with(said, said.confidence, f"{counted}: another build than the one that crashed")
    if finding.status is Status.AFFECTED:
        if build.same:
            return _with(said, 1.0, f"{counted}, and its code has the defect: it is certain")
        return _with(said, max(said.confidence, 0.97), f"the code of {where} has the defect")
    if finding.status in SAFE:
        word = "fixed" if finding.status is Status.FIXED else "free of the defect"
        if build.same:
            return _with(said, min(said.confidence, 0.3), f"{counted}, but its code is {word}: a contradiction")
        return _with(said, said.confidence, f"the code of {where} is {word}: it may not be the kernel that crashed")
    return _with(said, said.confidence, f"whether the code of {where} has the defect could not be decided")


def _with(said: Judgement, confidence: float, why: str) -> Judgement:
    return msgspec.structs.replace(said, confidence=confidence, why=f"{said.why}; {why}")
