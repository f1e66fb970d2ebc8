# SPDX-License-Identifier: GPL-2.0-or-later
"""The JSON document that every command prints: one envelope, key order as docs/json.md gives it.

Its schemas are shipped beside this module, in `schemas/<command>.json`; `ejectable schema NAME` prints them.
"""

import datetime as dt
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec

from ejectable import __version__
from ejectable.errors import WrongUsage
from ejectable.model import Finding, KernelReport, Status
from ejectable.report.text import UNPRINTABLE

__all__ = ["VERSION", "build", "encode", "findings", "kernel", "schema", "schema_names"]

# The number at the end of "ejectable/kernel/1". It rises when a key changes its meaning or goes away; never when
# one is added.
VERSION = 1


def build(
    command: str, *, status: Status, summary: str, next_steps: Sequence[str], body: dict[str, Any]
) -> dict[str, Any]:
    """The document of `command`: the envelope, then the keys of `body` in their order.

    `body` holds whatever msgspec can encode: structs of `ejectable.model`, sequences, dictionaries, plain values.
    """
    return {
        "schema": f"ejectable/{command}/{VERSION}",
        "tool": {"name": "ejectable", "version": __version__},
        "generated": _now(),
        "status": str(status),
        "summary": summary,
        "next_steps": list(next_steps),
        **body,
    }


def encode(document: dict[str, Any], *, indent: int = 2) -> bytes:
    """The document as UTF-8 JSON, with a newline at its end; on one line with `indent` 0.

    Text that came from a file name or a log may hold lone surrogates, which no UTF-8 can carry: they become
    question marks.
    """
    plain = msgspec.to_builtins(document, enc_hook=str)
    try:
        data = msgspec.json.encode(plain)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_printable(plain))
    return _escaped(msgspec.json.format(data, indent=indent)) + b"\n"


def kernel(report: KernelReport, *, explain: bool = False) -> dict[str, Any]:
    """One element of `kernels`, without the keys that only `check` has."""
    return {
        "path": report.path,
        "member": report.member,
        "release": report.release,
        "banner": report.banner,
        "arch": report.arch,
        "build_id": report.build_id,
        "format": report.format,
        "virtio_pci": report.virtio_pci,
        "findings": findings(report.findings, explain=explain),
    }


def findings(items: Sequence[Finding], *, explain: bool = False) -> list[dict[str, Any]]:
    """The FINDINGs of a kernel; `explanation` is there only when it was asked for."""
    found = []
    for item in items:
        one: dict[str, Any] = {
            "advisory": item.advisory,
            "status": item.status,
            "justification": item.justification,
            "reason": item.reason,
            "evidence": [{"kind": e.kind, "says": e.says, "detail": e.detail} for e in item.evidence],
            "conflict": item.conflict,
            "doubts": [{"kind": d.kind, "where": d.where, "detail": d.detail} for d in item.doubts],
            "may": item.may,
        }
        if explain:
            one["explanation"] = list(item.explanation)
        found.append(one)
    return found


def schema_names() -> tuple[str, ...]:
    """The documents that have a schema, sorted."""
    folder = resources.files("ejectable.report") / "schemas"
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")))


def schema(name: str) -> str:
    """The JSON Schema (draft 2020-12) of the document of this command; raises `WrongUsage`."""
    name = re.sub(r"^ejectable/([a-z]+)/\d+$", r"\1", name)
    if name not in schema_names():
        raise WrongUsage(f"There is no schema named {name!r}.", hint=f"There are: {', '.join(schema_names())}.")
    return (resources.files("ejectable.report") / "schemas" / f"{name}.json").read_text(encoding="utf-8")


def _now() -> str:
    """RFC 3339, in UTC. SOURCE_DATE_EPOCH fixes it (https://reproducible-builds.org/specs/source-date-epoch/)."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    # Eleven digits reach beyond the year 5000; more would not be a time.
    seconds = int(fixed) if re.fullmatch(r"\d{1,11}", fixed) else None
    if seconds is None:
        moment = dt.datetime.now(dt.UTC)
    else:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _escaped(data: bytes) -> bytes:
    """The same document with JSON's escapes for what a terminal may obey: such characters stand in strings only."""
    if data.isascii() and b"\x7f" not in data:
        return data
    return UNPRINTABLE.sub(
        lambda found: "\n" if found[0] == "\n" else json.dumps(found[0])[1:-1], data.decode()
    ).encode()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
