# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in a guest prove about CVE-2024-42134.

Only a device that is driven as legacy takes the faulty path (see exposure): a modern one that survives says
nothing about the kernel.
"""

from collections.abc import Sequence

from ejectable.model import Claim, Run

__all__ = ["ID", "judge"]

ID = "CVE-2024-42134"


def judge(runs: Sequence[Run]) -> Claim:
    """One crash of this defect confirms it; it is refuted where every legacy device went, and left the guest well."""
    legacy = [run for run in runs if _legacy(run)]
    matched = [run for run in runs if run.advisory == ID]
    survived = [run for run in legacy if run.result == "survived"]
    if matched:
        return Claim(
            ID,
            "confirmed",
            f"{ID} is confirmed: {_of(matched, runs)} ended in its crash ({matched[0].crash or 'an Oops'}).",
        )
    if legacy and len(survived) == len(legacy):
        return Claim(
            ID, "refuted", f"{ID} is refuted for what was tried: {_of(survived, legacy)} with a legacy device survived."
        )
    if not legacy:
        return Claim(
            ID,
            "open",
            f"Nothing is said about {ID}: no device was driven as legacy, and only those can show it.",
            exercised=False,
        )
    words = ", ".join(sorted({run.result for run in legacy if run.result != "survived"}))
    return Claim(
        ID, "open", f"{ID} is neither confirmed nor refuted: a legacy device ended in {words}, without its crash."
    )


def _legacy(run: Run) -> bool:
    """Whether the device was driven as legacy: as the guest saw it, else as it was asked for."""
    return (run.driven or ("legacy" if run.mode in ("legacy", "forced-legacy") else "modern")) == "legacy"


def _of(some: Sequence[Run], every: Sequence[Run]) -> str:
    return f"{len(some)} of {len(every)} run{'s' if len(every) > 1 else ''}"
