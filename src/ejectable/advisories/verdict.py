# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence, then verdict: the rules that hold for every advisory.

Executed code outranks everything, then what the code and its types say, then what is written about it. A version
decides nothing: it adds or contradicts. Kinds that disagree are a conflict, and shown. Nothing found is `unknown`.
"""

from collections.abc import Sequence

from ejectable.model import Evidence, EvidenceKind, Finding, Status

__all__ = ["NEVER_ALONE", "verdict"]

# What may not decide by itself: what is written about a kernel, by its builder, its packager or its number.
NEVER_ALONE = frozenset({EvidenceKind.CONFIG, EvidenceKind.CHANGELOG, EvidenceKind.VERSION})
ORDER = tuple(EvidenceKind)
SAFE = frozenset({Status.FIXED, Status.NOT_AFFECTED})


def verdict(
    advisory: str,
    evidence: Sequence[Evidence],
    *,
    nothing: str,
    justification: str | None = None,
    explanation: Sequence[str] = (),
    doubt: bool = False,
) -> Finding:
    """What the evidence adds up to; `nothing` is the reason where it decides nothing.

    With a `doubt` about the code that was run, weaker kinds may still speak against the kernel, and not for it.
    """
    ranked = sorted(evidence, key=lambda item: ORDER.index(item.kind))
    deciding = [
        item for item in ranked
        if item.says is not Status.UNKNOWN and item.kind not in NEVER_ALONE and not (doubt and item.says in SAFE)
    ]  # fmt: skip
    said = {_side(item.says) for item in ranked if item.says is not Status.UNKNOWN}
    conflict = len(said) > 1
    if not deciding:
        return Finding(advisory, Status.UNKNOWN, None, nothing, tuple(ranked), conflict, tuple(explanation))
    first = deciding[0]
    return Finding(
        advisory=advisory,
        status=first.says,
        justification=justification if first.says is Status.NOT_AFFECTED else None,
        reason=first.detail,
        evidence=tuple(ranked),
        conflict=conflict,
        explanation=tuple(explanation),
    )


def _side(status: Status) -> str:
    """`fixed` and `not_affected` do not contradict each other: both say that nothing will happen."""
    return "safe" if status in SAFE else str(status)
