# SPDX-License-Identifier: GPL-2.0-or-later
"""More of what becomes of a log on its way to whoever reads it: chats, mails, tables, consoles, collectors."""

import base64
import html
import json
import quopri
import random
import re
import textwrap
from collections.abc import Callable, Sequence

__all__ = ["PASTES"]

Transformation = Callable[[str, random.Random], bytes]
STAMP = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[CT]\d+\])? ?")


def _of(change: Callable[[Sequence[str]], str | bytes], *, bare: bool = False) -> Transformation:
    """A transformation of all lines; `bare`: without their stamps."""

    def changed(text: str, _rng: random.Random) -> bytes:
        lines = text.splitlines()
        data = change([STAMP.sub("", line) for line in lines] if bare else lines)
        return data if isinstance(data, bytes) else data.encode()

    return changed


def _each(form: str, *, bare: bool = True, quote: Callable[[str], str] = str) -> Transformation:
    """Each line put into a form: `{line}`, `{n}` its number, `{s}` seconds that pass."""
    return _of(
        lambda lines: "\n".join(form.format(line=quote(line), n=at, s=at % 60) for at, line in enumerate(lines, 1)),
        bare=bare,
    )


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _padded(lines: Sequence[str]) -> str:
    """A screen of 80 columns, filled with blanks."""
    return "\n".join(line[at : at + 80].ljust(80) for line in lines for at in range(0, max(len(line), 1), 80))


def _flowed(lines: Sequence[str]) -> str:
    return "\n".join(f"> {row}" for line in lines for row in textwrap.wrap(line, 72, break_long_words=False) or [""])


def _record(line: str) -> str:
    return json.dumps({"host": "web1", "short_message": line})


MAIL = b"From: a@example.org\nSubject: crash\nContent-Transfer-Encoding: %b\n\n%b"

PASTES: dict[str, Transformation] = {
    "table": _each("| {line} |"),
    "slack": _each("[10:{s:02d} AM] bob: {line}"),
    "whatsapp": _each("[01.06.26, 10:11:{s:02d}] Bob: {line}"),
    "irc": _each("10:{s:02d} <bob> {line}"),
    "csv": _each('2026-06-01T10:11:{s:02d}Z,web1,"{line}"', quote=_doubled),
    "csv, bare": _each("2026-06-01T10:11:{s:02d}Z,web1,{line}"),
    "csv of a viewer": _each('"Nov 25, 2026 @ 07:18:{s:02d}.123","{line}"', quote=_doubled),
    "logfmt": _each("time=2026-06-01T10:11:{s:02d}Z level=error msg={line}", quote=json.dumps),
    "xml": _each('  <entry n="{n}"><msg>{line}</msg></entry>', quote=html.escape),
    "cdata": _of(lambda lines: "<log><![CDATA[\n" + "\n".join(lines) + "\n]]></log>", bare=True),
    "diff": _each("+{line}"),
    "python list": _of(lambda lines: repr(list(lines)), bare=True),
    "python list, pretty": _of(lambda lines: "[\n" + "\n".join(f"    {line!r}," for line in lines) + "\n]", bare=True),
    "strings of C": _each('"{line}\\n"'),
    "strings joined": _each('  "{line}\\n" +'),
    "yaml list": _of(lambda lines: "console:\n" + "\n".join(f"  - {json.dumps(line)}" for line in lines), bare=True),
    "salt": _of(lambda lines: "web1:\n" + "\n".join(f"    {line}" for line in lines), bare=True),
    "ansible": _of(lambda lines: json.dumps({"stdout_lines": lines, "rc": 0}, indent=4), bare=True),
    "ansible, ad hoc": _of(lambda lines: "web1 | CHANGED | rc=0 >>\n" + "\n".join(lines)),
    "pdsh": _each("web1: {line}"),
    "grep -n": _each("{n}:{line}", bare=False),
    "grep -Hn": _each("console.log:{n}:{line}"),
    "cat -A": _each("{line}$"),
    "cat -A of crlf": _each("{line}^M$"),
    "escapes in words": _each("^[[0;33m{line}^[[0m"),
    "coloured by dmesg": _each("\x1b[32m[    2.537820] \x1b[0m\x1b[31m{line}\x1b[0m"),
    "dmesg -H": _each("[  +0.000123] {line}"),
    "rsyslog's line ends": _of(lambda lines: "Nov 25 07:18:30 h kernel: " + "#012".join(lines) + "\n"),
    "rsyslog's tabs": _each("Nov 25 07:18:30 h kernel: {line}", quote=lambda line: re.sub(r"\A ", "#011", line)),
    "cloudwatch": _of(
        lambda lines: json.dumps({"events": [{"timestamp": at, "message": one} for at, one in enumerate(lines)]})
    ),
    "base64 in json": _of(
        lambda lines: json.dumps({"InstanceId": "i-1", "Output": base64.b64encode("\n".join(lines).encode()).decode()})
    ),
    "base64": _of(lambda lines: base64.encodebytes("\n".join(lines).encode())),
    "kubectl": _each("[pod/node-debug/x] {line}"),
    "stern": _each("node-debug x {line}"),
    "mail": _of(lambda lines: MAIL % (b"quoted-printable", quopri.encodestring("\n".join(lines).encode()))),
    "mail in base64": _of(lambda lines: MAIL % (b"base64", base64.encodebytes("\n".join(lines).encode()))),
    "quoted and wrapped": _of(_flowed),
    "screen": _of(_padded),
    "screen without stamps": _of(_padded, bare=True),
    "short-full": _each("Wed 2026-11-25 07:18:30 UTC web1 kernel: {line}"),
    "short-unix": _each("1795591110.123456 web1 kernel: {line}"),
    "without a host": _each("Nov 25 07:18:30 kernel: {line}"),
    "in French": _each("nov. 25 07:18:30 web1 kernel: {line}"),
    "bullets": _each("\u2022 {line}"),
    "list": _each("- {line}"),
    "code in a list": _each("- `{line}`"),
    "wide blanks": _of(lambda lines: "\n".join(lines).replace(" ", "\u2009"), bare=True),
    "wide letters": _of(
        lambda lines: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in "\n".join(lines)), bare=True
    ),
    "no width": _of(lambda lines: "\n".join(lines).replace("_", "_\u200b"), bare=True),
    "tab for the blank": _of(lambda lines: "\n".join(re.sub(r"\A ", "\t", line) for line in lines), bare=True),
    "twice returned": _each("{line}\r\r", bare=False),
    "stamped by ts": _each("Nov 25 07:18:{s:02d} {line}"),
    "stamped in brackets": _each("[2026-11-25 07:18:{s:02d}] {line}"),
    "splunk's table": _each("11/25/26 7:18:{s:02d}.123 AM\t{line}"),
    "gelf": _each("{line}", quote=_record),
    "json in json": _each("{line}", quote=lambda line: json.dumps({"log": json.dumps({"message": line})})),
    "numbers in hexadecimal": _each("0x{n:04x}: {line}"),
    "pstore": _of(lambda lines: "Oops#1 Part1\n" + "\n".join(f"<4>{line}" for line in lines)),
    "levels": _each("<1>{line}"),
    "ramoops": _of(lambda lines: "====1795591110.123456-D\n" + "\n".join(f"<1>{line}" for line in lines)),
    "logcat": _each("11-25 07:18:{s:02d}.123  root     0     0 E kernel  : {line}"),
    "xen": _each("(XEN) [2026] (d1) {line}"),
    "conserver": _each("[Wed Nov 25 07:18:30 2026]{line}"),
}
