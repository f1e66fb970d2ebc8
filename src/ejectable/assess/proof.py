# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in guests add up to: a status, a claim about an advisory, and whether a prediction held."""

from collections.abc import Sequence

import msgspec

from ejectable.advisories import registry
from ejectable.model import Claim, KernelReport, Run, Status, worst

__all__ = ["Prediction", "Proof", "claims_of", "predict", "status_of"]


class Prediction(msgspec.Struct, frozen=True):
    """What `ejectable kernel` says of the same kernel, and whether the runs bear it out."""

    status: Status
    agrees: bool | None  # `None`: one of the two says nothing
    reason: str
    kernel: KernelReport | None


class Proof(msgspec.Struct, frozen=True):
    """All that a session came to."""

    runs: tuple[Run, ...]
    skipped: tuple[tuple[str, str], ...]  # the name of a case, and why it was not tried
    reasons: tuple[tuple[str, int], ...]  # each reason once, with how many cases it rules out
    accelerator: str
    accelerator_why: str
    evidence: str | None
    notes: tuple[str, ...] = ()
    prediction: Prediction | None = None
    claims: tuple[Claim, ...] = ()  # one for each advisory that was asked about
    named: bool = False  # somebody asked for these advisories by name: every one of them must be answered

    @property
    def status(self) -> Status:
        """The word for it all: the worst of the runs' and the claims'; `unknown` where no run could show a defect.

        Runs prove only what they exercised. A prediction that the runs contradict leaves it open.
        """
        words = [status_of(run) for run in self.runs]
        asked = [claim for claim in self.claims if self.named or claim.exercised]
        words += [CLAIMED[claim.verdict] for claim in asked] or [Status.UNKNOWN]
        if self.prediction is not None and self.prediction.agrees is False:
            words.append(Status.UNKNOWN)
        return worst(words)

    @property
    def summary(self) -> str:
        """One line for a person."""
        if not self.runs:
            return "Nothing was tried: every combination asked for is ruled out."
        words = [run.result for run in self.runs]
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        runs = "1 run" if len(words) == 1 else f"{len(words)} runs"
        return " ".join((f"{runs}: {counts}.", *(claim.line for claim in self.claims)))

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do about it, in order."""
        steps = []
        words = {run.result for run in self.runs}
        if any(run.advisory for run in self.runs):
            steps.append(
                "Do not hot-unplug such a device from a guest of this kernel; `ejectable fix` has the remedies."
            )
        if words & {"crashed-otherwise", "hang"}:
            steps.append(
                "Read the transcript of the run that died: no advisory knows that death. Try it again on an idle host "
                "before you blame the kernel."
            )
        if "no-boot" in words:
            steps.append(
                "Look at the last lines of the console: a kernel needs a serial console, and its drivers as modules "
                "beside it (--modules) or built in."
            )
        if self.prediction is not None and self.prediction.agrees is False:
            steps.append("Prediction and proof disagree: report it, with the kernel and the evidence.")
        return tuple(steps)


CLAIMED = {"confirmed": Status.AFFECTED, "refuted": Status.NOT_AFFECTED, "open": Status.UNKNOWN}


def status_of(run: Run) -> Status:
    """What one run adds to the answer: `affected` takes an advisory's signature, whatever else the guest died of."""
    if run.advisory is not None:
        return Status.AFFECTED
    unsound = any(event.removal for event in run.events)  # a warning, a stall, a sanitizer's report in the removal
    return Status.NOT_AFFECTED if run.result == "survived" and not unsound else Status.UNKNOWN


def claims_of(runs: Sequence[Run], advisories: Sequence[str]) -> tuple[Claim, ...]:
    """What the runs prove about each of these advisories; nothing about those that no guest can show."""
    claims: list[Claim] = []
    for name, advisory in registry().items():
        if name in advisories and advisory.scenario is not None:
            claims.append(advisory.scenario.judge(runs, name))
    return tuple(claims)


def predict(claims: Sequence[Claim], kernels: Sequence[KernelReport]) -> Prediction:
    """Hold what the code says of a kernel against what the kernel did. `kernels` are the reports on its code."""
    told = [
        (claim, finding.status, kernel)
        for claim in claims
        for kernel in kernels
        for finding in kernel.findings
        if finding.advisory == claim.advisory
    ]
    if not told:
        return Prediction(Status.UNKNOWN, None, "Nothing could be predicted: its code could not be judged.", None)
    status = worst(said for _, said, _ in told)
    claim, _, kernel = next(one for one in told if one[1] is status)
    said = f"`ejectable kernel` says {status} of this kernel"
    if claim.verdict == "open" or status is Status.UNKNOWN:
        silent = "the code" if status is Status.UNKNOWN else "what was run"
        return Prediction(status, None, f"{said}; {silent} decides nothing, so there is nothing to compare.", kernel)
    if (claim.verdict == "confirmed") == (status is Status.AFFECTED):
        return Prediction(status, True, f"{said}, and the proof agrees: the advisory is {claim.verdict}.", kernel)
    return Prediction(status, False, f"{said}, but the proof DISAGREES: the advisory is {claim.verdict}.", kernel)
