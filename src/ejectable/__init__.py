# SPDX-License-Identifier: GPL-2.0-or-later
"""Will this Linux kernel crash when a device is taken away, and what do I do about it?

What is listed here is the public interface for Python (docs/python.md); it is imported when it is first used, so that
`import ejectable` costs nothing. Everything else is the project's own and may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ejectable.api import check_machine, judge_kernels, read_logs
    from ejectable.errors import EjectableError
    from ejectable.model import Doubt, DoubtKind, Evidence, EvidenceKind, Finding, Status
    from ejectable.report.check import CheckDocument
    from ejectable.report.crash import CrashDocument
    from ejectable.report.document import encode, schema
    from ejectable.report.kernel import KernelDocument

__all__ = [
    "CheckDocument",
    "CrashDocument",
    "Doubt",
    "DoubtKind",
    "EjectableError",
    "Evidence",
    "EvidenceKind",
    "Finding",
    "KernelDocument",
    "Status",
    "__version__",
    "check_machine",
    "encode",
    "judge_kernels",
    "read_logs",
    "schema",
]

__version__ = "0.1.0"

# Where each name of __all__ comes from.
_HOMES = {
    "ejectable.api": ("check_machine", "judge_kernels", "read_logs"),
    "ejectable.errors": ("EjectableError",),
    "ejectable.model": ("Doubt", "DoubtKind", "Evidence", "EvidenceKind", "Finding", "Status"),
    "ejectable.report.check": ("CheckDocument",),
    "ejectable.report.crash": ("CrashDocument",),
    "ejectable.report.document": ("encode", "schema"),
    "ejectable.report.kernel": ("KernelDocument",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
