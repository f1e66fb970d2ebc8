# SPDX-License-Identifier: GPL-2.0-or-later
"""What people and tools do to a log on its way to somebody who reads it, each as a small function of its lines.

Dresses (`DRESSES`) lose nothing: the full verdict must come out. Damages (`DAMAGES`) lose something: the verdict may be
unknown, and never a safe word. Every function is deterministic: it takes the log's text and a `random.Random`.
"""

import html
import json
import random
import re
from collections.abc import Callable

from tests.attack.pastes import PASTES

__all__ = ["DAMAGES", "DRESSES", "Transformation", "apply", "text_of"]

Transformation = Callable[[str, random.Random], bytes]

MISTAKES = (("0x", "Ox"), ("_", ""), ("1", "l"), ("l", "1"), ("0", "O"), ("+", " + "), ("_", " "))
FOREIGN = ("[   70.000001]  do_idle+0x20/0x60\n", "[   70.000002] usb 1-1: reset\n", "login: \n")
FRAME = re.compile(r"[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+")
STAMP = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[CT]\d+\])? ?")


def _lines(change: Callable[[int, str], str]) -> Transformation:
    """A transformation of each line, by its number from 1."""

    def changed(text: str, _rng: random.Random) -> bytes:
        lines = text.splitlines()
        return ("\n".join(change(number, line) for number, line in enumerate(lines, 1)) + "\n").encode()

    return changed


def _before(prefix: str) -> Transformation:
    return _lines(lambda _number, line: prefix + line)


def _unstamped(text: str) -> str:
    return "\n".join(STAMP.sub("", line) for line in text.splitlines()) + "\n"


def _whole(change: Callable[[str], str | bytes]) -> Transformation:
    def changed(text: str, _rng: random.Random) -> bytes:
        data = change(text)
        return data if isinstance(data, bytes) else data.encode()

    return changed


def _folded(width: int) -> Transformation:
    def fold(text: str) -> str:
        pieces = []
        for line in text.splitlines():
            pieces += [line[at : at + width] for at in range(0, len(line), width)] or [""]
        return "\n".join(pieces) + "\n"

    return _whole(fold)


def _records(key: str, *, wrap: Callable[[list[dict[str, str]]], object] | None = None) -> Transformation:
    """A record for each line; on a line of its own, or wrapped in a document."""

    def records(text: str) -> str:
        found = [{"t": f"2026-06-01T10:00:{at % 60:02d}Z", key: line} for at, line in enumerate(text.splitlines())]
        if wrap is None:
            return "".join(json.dumps(record) + "\n" for record in found)
        return json.dumps(wrap(found))

    return _whole(records)


def _two_hosts(text: str, _rng: random.Random) -> bytes:
    """Two hosts in one syslog, line by line in turn: the other one boots."""
    other = [f"usb {at}-1: new high-speed USB device number {at} using xhci_hcd" for at in range(2000)]
    pairs = zip(text.splitlines(), other, strict=False)
    return "".join(
        f"Jun  1 10:11:12 vm-a kernel: {line}\nJun  1 10:11:12 vm-b kernel: [  1.{at:06d}] {said}\n"
        for at, (line, said) in enumerate(pairs)
    ).encode()


def _callers(text: str, _rng: random.Random) -> bytes:
    """Another CPU speaks between the lines, and printk names the callers."""
    lines = []
    for at, line in enumerate(text.splitlines()):
        stamp = STAMP.match(line)
        rest = line[stamp.end() :] if stamp else line
        lines += [f"[ 9321.{at:06d}][    T7] {rest}", f"[ 9321.{at:06d}][    C3] net eth{at}: link is up"]
    return ("\n".join(lines) + "\n").encode()


def _other_report(number: int, caller: str = "") -> list[str]:
    """The lines of another crash, a warning: different for each number."""
    at = f"{number:03x}"
    return [
        f"[ 9300.{number:06d}]{caller} {line}"
        for line in (
            "------------[ cut here ]------------",
            f"WARNING: CPU: 1 PID: 77 at drivers/acme/acme.c:{number + 1} acme_{at}_work+0x1b/0x90",
            "CPU: 1 PID: 77 Comm: kworker/1:1 Not tainted 6.8.0-31-generic #31-Ubuntu",
            f"RIP: 0010:acme_{at}_work+0x1b/0x90",
            "Call Trace:",
            " <TASK>",
            f" acme_{at}_work+0x1b/0x90",
            " process_one_work+0x16c/0x350",
            " worker_thread+0x306/0x440",
            " kthread+0xef/0x120",
            " </TASK>",
            "---[ end trace 0000000000000000 ]---",
        )
    ]


def _with_another(text: str, *, before: int = 0, after: int = 0) -> str:
    """So many other reports in front of it and behind it."""
    first = [line for number in range(before) for line in _other_report(number)]
    last = [line for number in range(after) for line in _other_report(number)]
    return "\n".join([*first, *text.splitlines(), *last]) + "\n"


def _two_reports(text: str, _rng: random.Random) -> bytes:
    """Another CPU's report line by line between its own; printk names the callers."""
    other = _other_report(7, "[    C1]")
    lines = []
    for at, line in enumerate(text.splitlines()):
        lines.append(f"[ 9300.{at:06d}][    T7] {STAMP.sub('', line)}")
        lines += other[at : at + 1]
    return ("\n".join(lines) + "\n").encode()


def _array(records: list[dict[str, str]]) -> object:
    return records


def _elastic(records: list[dict[str, str]]) -> object:
    return {"took": 3, "hits": {"total": 1, "hits": [{"_index": "logs", "_source": record} for record in records]}}


def _loki(text: str) -> str:
    values = [[str(1717236000000000000 + at), line] for at, line in enumerate(text.splitlines())]
    return json.dumps({"status": "success", "data": {"result": [{"stream": {"job": "k"}, "values": values[::-1]}]}})


DRESSES: dict[str, Transformation] = {
    "as it is": _whole(lambda text: text),
    "without stamps": _whole(_unstamped),
    **{f"indented {count}": _before(" " * count) for count in (1, 2, 4, 8)},
    "tab": _before("\t"),
    "no-break space": _before("\u00a0"),
    "quoted": _before("> "),
    "quoted twice": _before("> > "),
    "quoted without stamps": _whole(lambda text: "".join(f"> {line}\n" for line in _unstamped(text).splitlines())),
    "indented without stamps": _whole(lambda text: "".join(f"    {line}\n" for line in _unstamped(text).splitlines())),
    "numbered": _lines(lambda number, line: f"{number:6d}  {line}"),
    "numbered with a colon": _lines(lambda number, line: f"{number}: {line}"),
    "numbered with a bar": _lines(lambda number, line: f"{number:4d} | {line}"),
    "numbered in brackets": _lines(lambda number, line: f"({number}) {line}"),
    "numbered without stamps": _whole(
        lambda text: "".join(f"{at:5d}\t{line}\n" for at, line in enumerate(_unstamped(text).splitlines(), 1))
    ),
    "compose": _before("guest_1  | "),
    "cri": _lines(lambda number, line: f"2026-06-01T10:11:12.{number:09d}Z stdout F {line}"),
    "cri without stamps": _whole(
        lambda text: "".join(
            f"2026-06-01T10:11:12.{at:09d}Z stdout F {line}\n" for at, line in enumerate(_unstamped(text).splitlines())
        )
    ),
    "own stamps": _whole(
        lambda text: "".join(
            f"{at // 60:02d}:{at % 60:02d}.{at:03d} tty {line}\n"
            for at, line in enumerate(_unstamped(text).splitlines())
        )
    ),
    "syslog": _before("Jun  1 10:11:12 ecs-7 kernel: "),
    "journal": _before("2026-06-01T10:11:12+0200 ecs-7 kernel: "),
    "html": _whole(lambda text: f"<html><body><pre>{html.escape(text)}</pre></body></html>"),
    "html breaks": _whole(lambda text: "<p>" + html.escape(text).replace("\n", "<br>") + "</p>"),
    "markdown": _whole(lambda text: re.sub(r"([_\[\]<>])", r"\\\1", text)),
    "fenced": _whole(lambda text: f"It crashed:\n\n```\n{text}```\n"),
    "yaml": _whole(lambda text: "host: a\nconsole: |\n" + "".join(f"  {line}\n" for line in text.splitlines())),
    "apport": _whole(lambda text: "ProblemType: KernelOops\nOopsText:\n " + text.replace("\n", "\n ")),
    "json field": _whole(lambda text: json.dumps({"host": "a", "screen": text, "n": 1})),
    "json field, deep": _whole(lambda text: json.dumps({"a": [{"b": {"console text": text}}]}, indent=2)),
    "json lines, message": _records("message"),
    "json lines, _raw": _records("_raw"),
    "json lines, textPayload": _records("textPayload"),
    "json array": _records("text", wrap=_array),
    "elastic": _records("message", wrap=_elastic),
    "loki, newest first": _whole(_loki),
    "literal \\n": _whole(lambda text: text.replace("\n", "\\n")),
    "python string": _whole(repr),
    "carriage returns": _whole(lambda text: text.replace("\n", "\r")),
    "crlf": _whole(lambda text: text.replace("\n", "\r\n")),
    "utf-16": _whole(lambda text: text.encode("utf-16")),
    "utf-16 without bom": _whole(lambda text: text.encode("utf-16-le")),
    "utf-16 big": _whole(lambda text: b"\xfe\xff" + text.encode("utf-16-be")),
    "utf-8 bom": _whole(lambda text: b"\xef\xbb\xbf" + text.encode()),
    "folded 80": _folded(80),
    "folded 60": _folded(60),
    "reversed": _whole(lambda text: "\n".join(reversed(text.splitlines())) + "\n"),
    "no last newline": _whole(lambda text: text.rstrip("\n")),
    "blank lines between": _whole(lambda text: text.replace("\n", "\n\n")),
    "colours": _before("\x1b[0;33m"),
    "two hosts": _two_hosts,
    "callers": _callers,
    "another report before": _whole(lambda text: _with_another(text, before=1)),
    "another report behind": _whole(lambda text: _with_another(text, after=1)),
    "60 reports before": _whole(lambda text: _with_another(text, before=60)),
    "another CPU's report between": _two_reports,
    "latin-1 quotes around": _whole(lambda text: b"\x93" + text.encode() + b"\x94\n"),
    "xml": _whole(lambda text: f'<?xml version="1.0"?>\n<log><![CDATA[{text}]]></log>\n'),
    "csv": _whole(
        lambda text: "time,message\n" + "".join(f'{at},"{line}"\n' for at, line in enumerate(text.splitlines()))
    ),
    "mail": _whole(lambda text: f"From: a@b\nSubject: it crashed\n\n{text}\n-- \nregards\n"),
    **PASTES,
}


def _cut(text: str, rng: random.Random, *, head: bool, tail: bool) -> bytes:
    lines = text.splitlines(keepends=True)
    start = rng.randrange(len(lines)) if head else 0
    end = rng.randrange(start, len(lines)) + 1 if tail else len(lines)
    return "".join(lines[start:end]).encode()


def _dropped(text: str, rng: random.Random) -> bytes:
    lines = text.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    del lines[start : start + rng.randrange(1, 12)]
    return "".join(lines).encode()


def _some_lost(text: str, rng: random.Random) -> bytes:
    return "".join(line for line in text.splitlines(keepends=True) if rng.random() > 0.1).encode()


def _one_wrong(text: str, rng: random.Random) -> bytes:
    """One character of one line is wrong."""
    at = rng.randrange(len(text))
    return (text[:at] + rng.choice("oO0lI1 _xX?") + text[at + 1 :]).encode()


def _retyped(text: str, rng: random.Random) -> bytes:
    """Each frame with a chance of the mistakes that people and OCR make."""

    def typed(match: re.Match[str]) -> str:
        frame = match.group(0)
        if rng.random() > 0.3:
            return frame
        wrong, right = rng.choice(MISTAKES)
        return frame.replace(wrong, right, 1)

    return FRAME.sub(typed, text).encode()


def _lost_characters(text: str, rng: random.Random) -> bytes:
    return "".join(character for character in text if character == "\n" or rng.random() > 0.01).encode()


def _doubted(text: str, rng: random.Random) -> bytes:
    return FRAME.sub(lambda match: ("? " if rng.random() < 0.3 else "") + match.group(0), text).encode()


def _foreign_lines(text: str, rng: random.Random) -> bytes:
    lines = []
    for line in text.splitlines(keepends=True):
        if rng.random() < 0.2:
            lines.append(rng.choice(FOREIGN))
        lines.append(line)
    return "".join(lines).encode()


def _shuffled_near(text: str, rng: random.Random) -> bytes:
    """Neighbours change places, as two loggers deliver them."""
    lines = text.splitlines(keepends=True)
    for at in range(len(lines) - 1):
        if rng.random() < 0.1:
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return "".join(lines).encode()


def _mixed(text: str, _rng: random.Random) -> bytes:
    """Another CPU's report line by line between its own, and nothing names the callers."""
    other = [STAMP.sub("[ 9321.000001] ", line) for line in _other_report(7)]
    lines = []
    for at, line in enumerate(text.splitlines()):
        lines += [line, *other[at : at + 1]]
    return ("\n".join(lines) + "\n").encode()


def _between(text: str, rng: random.Random) -> bytes:
    """Another report in the middle of it."""
    lines = text.splitlines()
    at = rng.randrange(len(lines) or 1)
    return ("\n".join([*lines[:at], *_other_report(3), *lines[at:]]) + "\n").encode()


def _shuffled(text: str, rng: random.Random) -> bytes:
    lines = text.splitlines(keepends=True)
    rng.shuffle(lines)
    return "".join(lines).encode()


DAMAGES: dict[str, Transformation] = {
    "beginning lost": lambda text, rng: _cut(text, rng, head=True, tail=False),
    "end lost": lambda text, rng: _cut(text, rng, head=False, tail=True),
    "both lost": lambda text, rng: _cut(text, rng, head=True, tail=True),
    "middle lost": _dropped,
    "lines lost": _some_lost,
    "one character wrong": _one_wrong,
    "retyped": _retyped,
    "characters lost": _lost_characters,
    "frames doubted": _doubted,
    "foreign lines": _foreign_lines,
    "neighbours swapped": _shuffled_near,
    "joined by blanks": lambda text, _rng: " ".join(text.split("\n")).encode(),
    "joined without blanks": lambda text, _rng: text.replace("\n", "").encode(),
    "another CPU's lines between": _mixed,
    "another report between": _between,
    "blanks collapsed": lambda text, _rng: re.sub(r"[ \t]+", " ", text).encode(),
    "question marks for what is not ASCII": lambda text, _rng: text.encode("ascii", "replace"),
    "columns cut at 60": lambda text, _rng: "".join(f"{line[:60]}\n" for line in text.splitlines()).encode(),
    "every second line lost": lambda text, _rng: "".join(text.splitlines(keepends=True)[::2]).encode(),
    "wrong order": _shuffled,
}


def text_of(data: bytes) -> str | None:
    """The text of a log, whatever its encoding; `None` where it is packed, or no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if data.count(b"\0") * 3 > len(data) and data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data.startswith((b"\x1f\x8b", b"PK\3\4", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")) or b"ustar" in data[:512]:
        return None
    return data.decode("utf-8", "replace")


def apply(name: str, text: str, seed: int) -> bytes:
    """A log with one of them done to it."""
    return {**DRESSES, **DAMAGES}[name](text, random.Random(f"{name} {seed}"))
