# SPDX-License-Identifier: GPL-2.0-or-later
"""What the evidence adds up to: the rules that hold for every advisory.

Executed code outranks everything, then what the code and its types say, then what is written about it. What is
written about a kernel supports a safe word and never makes one. Nothing found is `unknown`.
"""

from collections.abc import Sequence

from ejectable.model import SAFE, Doubt, DoubtKind, Evidence, EvidenceKind, Finding, Justification, Status

__all__ = ["verdict"]

# What is written about a kernel, as against what is in it. A backport makes these wrong without anybody's fault.
PROSE = frozenset({EvidenceKind.CHANGELOG, EvidenceKind.VERSION})
# What never makes a safe word by itself. A configuration may be another build's, and may be cut off.
WEAK = PROSE | {EvidenceKind.CONFIG}
ORDER = tuple(EvidenceKind)


def verdict(
    advisory: str,
    evidence: Sequence[Evidence],
    *,
    nothing: str,
    explanation: Sequence[str] = (),
    doubts: Sequence[Doubt] = (),
) -> Finding:
    """What the evidence adds up to; `nothing` is the reason where it decides nothing.

    `doubts` are about the code: with one, no kind of evidence speaks for the kernel, and each may speak against it.
    """
    ranked = tuple(sorted(evidence, key=lambda item: ORDER.index(item.kind)))
    spoken = [item for item in ranked if item.says is not Status.UNKNOWN]
    conflict = len({item.says in SAFE for item in spoken if item.kind not in PROSE}) > 1
    able = [item for item in spoken if item.kind not in PROSE and not (doubts and item.says in SAFE)]
    deciding = next((item for item in able if item.kind not in WEAK), next(iter(able), None))
    found = Finding(
        advisory=advisory,
        status=deciding.says if deciding else Status.UNKNOWN,
        justification=_justification(spoken) if deciding and deciding.says is Status.NOT_AFFECTED else None,
        reason=deciding.detail if deciding else doubts[0].detail if doubts else nothing,
        evidence=ranked,
        conflict=conflict,
        explanation=tuple(explanation),
    )
    if deciding is not None and deciding.kind in WEAK and deciding.says in SAFE:
        detail = f"{deciding.detail}; nothing that was seen in the code says so too"
        return found.doubted(*doubts, Doubt(DoubtKind.WEAK, str(deciding.kind), detail))
    return found.doubted(*doubts)


def _justification(spoken: Sequence[Evidence]) -> Justification:
    """Why it is not affected: that the code is not reached, where any evidence says so, else that it is not there."""
    given = [item.justification for item in spoken if item.justification is not None]
    return Justification.NOT_REACHED if Justification.NOT_REACHED in given else Justification.NOT_PRESENT
