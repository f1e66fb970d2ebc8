# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs inside a document: any string field of JSON that holds lines, or any field that every record of a list has.

Clouds wrap a console in a field, search engines return one record a line; which field it is does not matter: those in
which a line is a kernel's are logs. Records that name a host are kept apart by it.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from ejectable.crash.kernel_log import is_kernel_log
from ejectable.crash.lines import host_of

__all__ = ["fields", "from_base64", "is_document"]

LARGEST = 64 << 20
MOST_NODES = 2_000_000
MOST_FIELDS = 2000
DOCUMENT = re.compile(rb"\s{0,64}(?:\{\s{0,64}\"|\[\s{0,64}[{\"\[])")
Path = tuple[str, ...]


def is_document(data: bytes) -> bool:
    """Whether it begins as JSON. A kernel's line begins with a bracket too, and with a number in it."""
    return DOCUMENT.match(data) is not None


def fields(data: bytes) -> list[tuple[str, bytes]]:
    """Each field that holds a log, by its path, and its text; none where it is no document, or one of lines."""
    if not is_document(data) or len(data) > LARGEST:
        return []
    # Journals and dmesg --json have a line for each message: they are read line by line.
    known = data.count(b'"MESSAGE"') + data.count(b'"msg"')
    if known and known <= data.count(b"\n"):
        return []
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for path, host, text in _leaves(document):
        key = (".".join(path), host)
        if key in found or len(found) < MOST_FIELDS:
            found.setdefault(key, []).append(from_base64(text))
    logs = []
    for (name, host), texts in found.items():
        log = "\n".join(text.rstrip("\n") for text in texts).encode("utf-8", "replace")
        if is_kernel_log(log):
            logs.append((f"{name}, {host}" if host else name, log))
    return logs


def _leaves(document: Any) -> Iterator[tuple[Path, str, str]]:
    """Every string: where it stands, with `*` for a place in a list of records, and the host that its record names."""
    waiting: list[tuple[Path, str, Any]] = [((), "", document)]
    for _ in range(MOST_NODES):
        if not waiting:
            return
        path, host, node = waiting.pop()
        if isinstance(node, str):
            yield path, host, node
        elif isinstance(node, dict):
            if node.get("_TRANSPORT", "kernel") != "kernel":
                continue
            host = host_of(node) or host
            waiting += [((*path, str(key)), host, value) for key, value in reversed(node.items())]
        elif isinstance(node, list):
            row = len(node) <= 50 and path[-1:] == ("*",) and all(not isinstance(one, dict | list) for one in node)
            names = [str(at) if row else "*" for at in range(len(node))]
            waiting += [((*path, name), host, one) for name, one in reversed(list(zip(names, node, strict=True)))]


def from_base64(text: str) -> str:
    """What a text in base64 says; any other text as it is."""
    if len(text) < 80:
        return text
    packed = "".join(text.split())
    if not re.fullmatch(r"[A-Za-z0-9+/_-]{80,}={0,2}", packed):
        return text
    try:
        plain = base64.b64decode(packed.replace("-", "+").replace("_", "/") + "=" * (-len(packed) % 4))
    except (binascii.Error, ValueError):
        return text
    return plain.decode("utf-8", "replace")
