# SPDX-License-Identifier: GPL-2.0-or-later
"""One log, from whichever source, read into events in bounded memory.

A regular file is searched by several threads and only its interesting parts are parsed; what comes through a pipe or
a decompressor is looked at block by block. Both give the same events with the same line numbers.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import msgspec

from ejectable.crash.fields import is_document
from ejectable.crash.kernel_log import SAMPLE, first_pattern, is_kernel_log, left_unread, refuse, unread_line
from ejectable.crash.lines import clean, read
from ejectable.crash.prefixes import learn
from ejectable.crash.reader import Reader
from ejectable.crash.scan import BLOCK, CONTEXT_WORDS, WORDS, Block, holds_any, may_hold_a_crash
from ejectable.crash.undress import LARGEST, Piece, is_wide, undress
from ejectable.errors import BadInput, DamagedInput
from ejectable.model import Doubt, DoubtKind, Event

__all__ = ["Log", "read_bytes", "read_file", "read_stream"]

BEFORE = 1 << 16  # bytes in front of a block that holds a crash: its report may begin there
STREAMED = 1 << 18  # bytes of a stream that are looked at together: they stay in the processor's cache
AHEAD = 16  # blocks per thread that are searched before the next are handed out
REPORTED = (b"+0x", b"RIP: ", b"Call Trace", b"Oops")  # in what reports hold, prefixes are looked for
MOST_SAMPLES = 16  # pieces of a large file that are looked at, to see whether it is a log at all
Report = Callable[[int], None]
Matters = Callable[[Event], bool]


def nothing_matters(_event: Event) -> bool:
    """`False`: the bounds of what is listed hold for every event."""
    return False


class Log(msgspec.Struct):
    """What one input held."""

    source: str
    events: list[Event]
    lines: int | None = None  # None where nobody counted
    left_out: int = 0  # repetitions of events that are listed
    damaged: str | None = None  # what broke off the reading, as a sentence
    suspicious: Doubt | None = None  # a line that speaks of a crash, where no report could be read


def read_bytes(data: bytes, source: str, *, matters: Matters = nothing_matters) -> Log:
    """Read a log that is in memory. Raises `BadInput` where it is none.

    `matters` says whether an event must be given though the bounds of what is listed are reached.
    """
    pieces = undress(data) if len(data) <= LARGEST else [Piece(data)]
    logs = [_read_piece(piece, source, matters) for piece in pieces]
    events = [event for log_events, _, _ in logs for event in log_events]
    if len(pieces) > 1:
        events = [event for at, (found, _, _) in enumerate(logs) for event in _named(found, pieces[at].field)]
    log = _log(logs[0][1], events, [piece.data for piece in pieces])
    log.left_out = sum(reader.left_out for _, reader, _ in logs)
    unread = next((line for _, _, line in logs if line is not None), None)
    if events and unread is not None:
        detail = "Lines of a report of a crash are in none of those that were read."
        log.suspicious = Doubt(DoubtKind.UNPARSED, f"{source}:{unread}", detail)
    return log


def _read_piece(piece: Piece, source: str, matters: Matters) -> tuple[list[Event], Reader, int | None]:
    """One log that is in memory, with what is learned from it, and the first line of a report that was not read."""
    feeder = Feeder(source, matters)
    feeder.learn(piece.data)
    events = feeder.reader.feed(piece.data)
    events += feeder.finish()
    unread = None
    if events and not feeder.reader.left_out:  # the lines of what is left out are not known
        unread = unread_line(piece.data, [(event.line, event.last_line or event.line) for event in events])
    if piece.numbers is None:
        return events, feeder.reader, unread
    numbers = [0, *piece.numbers]

    def line(number: int | None) -> int | None:
        return None if number is None else numbers[min(number, len(numbers) - 1)]

    return (
        [
            msgspec.structs.replace(
                event, line=line(event.line), last_line=line(event.last_line), follows=line(event.follows)
            )
            for event in events
        ],
        feeder.reader,
        line(unread),
    )


def _named(events: list[Event], field: str) -> list[Event]:
    """The events of one of several fields, with its name in their source."""
    return [msgspec.structs.replace(event, source=f"{event.source}({field})") for event in events]


def read_stream(
    stream: BinaryIO,
    source: str,
    *,
    limit: int | None = None,
    progress: Report | None = None,
    matters: Matters = nothing_matters,
) -> Log:
    """Read what comes, until it ends. With `limit`, not more than so many bytes."""
    feeder = Feeder(source, matters)
    damaged: str | None = None
    first = b""
    try:
        while len(first) < SAMPLE and (
            piece := stream.read1(BLOCK) if hasattr(stream, "read1") else stream.read(BLOCK)
        ):
            first += piece
        # Documents and text in 16 bits are read whole, as far as a person would pass them on.
        while (is_wide(first) or is_document(first)) and len(first) < LARGEST and (piece := stream.read(BLOCK)):
            first += piece
    except DamagedInput as error:
        damaged = error.message
    if not first and damaged:
        raise BadInput(damaged)
    if damaged is None and (len(first) < SAMPLE or is_wide(first) or is_document(first)) and len(first) < LARGEST:
        return read_bytes(first, source, matters=matters)  # it has ended
    _must_not_be_binary(first[:SAMPLE], source)
    events = feeder.block(first)
    total = len(first)
    fill = getattr(stream, "readinto1", None) or getattr(stream, "readinto")  # noqa: B009  (typing does not know it)
    buffer, filled = memoryview(bytearray(STREAMED)), 0
    samples = [first[:SAMPLE]]
    while damaged is None:
        try:
            count = fill(buffer[filled:])
        except DamagedInput as error:
            damaged = error.message
            break
        if not count:
            break
        total += count
        if limit is not None and total > limit:
            damaged = f"{source}: unpacks to more than the limit of {limit} bytes; the rest was not read"
            break
        filled += count
        if filled == STREAMED:
            events += feeder.block(bytes(buffer))
            if len(samples) < MOST_SAMPLES:
                samples.append(bytes(buffer[:SAMPLE]))
            filled = 0
        if progress:
            progress(count)
    if filled:
        samples.append(bytes(buffer[:filled]))
        events += feeder.block(samples[-1])
    events += feeder.finish()
    log = _log(feeder.reader, events, samples)
    log.damaged = damaged
    return log


def read_file(
    descriptor: int,
    source: str,
    *,
    threads: int = 1,
    progress: Report | None = None,
    matters: Matters = nothing_matters,
) -> Log:
    """Read a regular file, as large as it is now: what is written to it meanwhile is left for the next time."""
    size = os.fstat(descriptor).st_size
    if size <= 2 * BLOCK:
        return read_bytes(_pread(descriptor, size, 0), source, matters=matters)
    samples = [_pread(descriptor, SAMPLE, 0)]
    if size <= LARGEST and (is_wide(samples[0]) or is_document(samples[0])):
        return read_bytes(_pread(descriptor, size, 0), source, matters=matters)
    _must_not_be_binary(samples[0], source)
    feeder = FileFeeder(source, descriptor, size, matters)
    for offset, hot in _searched(descriptor, size, threads, progress):
        if hot or feeder.busy:
            feeder.visit(offset, min(offset + BLOCK, size))
    feeder.visit(max(0, size - BLOCK), size)
    events = feeder.finish()
    if not events and not is_kernel_log(samples[0]):
        samples += [_pread(descriptor, SAMPLE, offset) for offset in range(0, size, max(BLOCK, size // MOST_SAMPLES))]
        samples.append(_pread(descriptor, SAMPLE, max(0, size - SAMPLE)))
    log = _log(feeder.reader, events, samples)
    log.lines = feeder.counted
    return log


def _log(reader: Reader, events: list[Event], samples: list[bytes]) -> Log:
    """What was read. Raises `BadInput` where nothing in it is a kernel's."""
    if not events and not any(is_kernel_log(sample) for sample in samples):
        raise refuse(samples[0], reader.source)
    log = Log(reader.source, in_order(events), reader.line, reader.left_out)
    if not events and reader.suspicious is not None:
        line, text = reader.suspicious
        detail = f"“{text.strip()[:100]}” speaks of a crash, and no report of one could be read."
        log.suspicious = Doubt(DoubtKind.UNPARSED, f"{reader.source}:{line}", detail)
    elif not events and (words := next(filter(None, map(left_unread, samples)), None)) is not None:
        detail = f"“{words.strip()}” is of a report of a crash, in a wrapping in which no report could be read."
        log.suspicious = Doubt(DoubtKind.UNPARSED, reader.source, detail)
    return log


def _must_not_be_binary(sample: bytes, source: str) -> None:
    """Raise `BadInput` at once for what is large and surely no text."""
    if sample.count(b"\0") * 20 > len(sample) and not is_kernel_log(sample):
        raise refuse(sample, source)


def in_order(events: list[Event]) -> list[Event]:
    """By line: of two that were interleaved, the later one may have been complete first."""
    return sorted(events, key=lambda event: event.line)


def _searched(descriptor: int, size: int, threads: int, progress: Report | None) -> Iterator[tuple[int, bool]]:
    """The offset of every block, in order, and whether it may hold a crash."""
    threads = max(1, min(threads, 4))
    blocks = [Block(BLOCK + 64) for _ in range(threads)]
    offsets = range(0, size, BLOCK)

    def search(lane: int, mine: range) -> list[bool]:
        block = blocks[lane]
        found = []
        for offset in mine:
            # A little of the next block, for a word that stands across the border.
            length = os.preadv(descriptor, [block.buffer], offset)
            found.append(block.holds_any(WORDS, length))
        return found

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(offsets), AHEAD * threads):
            batch = offsets[start : start + AHEAD * threads]
            lanes = [batch[lane * AHEAD : (lane + 1) * AHEAD] for lane in range(threads)]
            try:
                results = [pool.submit(search, lane, part) for lane, part in enumerate(lanes) if part]
            except RuntimeError as error:  # "can't start new thread": there is no room for its stack
                raise MemoryError from error
            for part, result in zip(lanes, results, strict=False):
                yield from zip(part, result.result(), strict=True)
            if progress:
                progress(min(len(batch) * BLOCK, size - batch[0]))


class Learner:
    """Learns from the first parts of a log in which something goes wrong what stands before the kernel's words."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._tries = 4

    def learn(self, data: bytes) -> None:
        """Look at one part."""
        if self.reader.prefixes is not None or not self._tries or not any(sign in data for sign in REPORTED):
            return
        self._tries -= 1
        first = max(0, min(at for sign in REPORTED if (at := data.find(sign)) >= 0) - (1 << 14))
        self.reader.prefixes = learn(data[first : first + (1 << 18)].decode("utf-8", "replace").split("\n"))


class Feeder(Learner):
    """Gives a reader those blocks of a stream that matter, and counts the lines of the others."""

    def __init__(self, source: str, matters: Matters) -> None:
        super().__init__(Reader(source, matters=matters))
        self._tail = b""  # the end of the last block that was left out, with its first line whole
        self._partial = b""  # the last, unfinished line

    def block(self, data: bytes) -> list[Event]:
        """Take the next block."""
        border = self._tail[-64:] + data[:64]
        if self.reader.busy or may_hold_a_crash(data) or may_hold_a_crash(border):
            tail, self._tail = self._tail, b""
            self.learn(tail + data)
            return self.reader.feed(tail + data)
        # Left out, but for its end: the next block may begin in the middle of a report.
        cut = data.rfind(b"\n", 0, max(0, len(data) - BEFORE)) + 1
        if cut and not self.reader.midline and not self._tells(border, self._tail, data):
            self.reader.skip(self._tail.count(b"\n") + data.count(b"\n", 0, cut))
            self._tail = data[cut:]
            return []
        whole = self._tail + data
        cut = whole.rfind(b"\n", 0, max(0, len(whole) - BEFORE)) + 1
        self._leave_out(whole[:cut])
        self._tail = whole[cut:]
        if len(self._tail) > BLOCK + BEFORE:  # a line without an end
            return self._flush()
        return []

    @staticmethod
    def _tells(*pieces: bytes) -> bool:
        """Whether something is said of the machine."""
        return any(holds_any(piece, CONTEXT_WORDS) for piece in pieces)

    def finish(self) -> list[Event]:
        """The end is always read in full."""
        return self._flush() + self.reader.finish()

    def _flush(self) -> list[Event]:
        tail, self._tail = self._tail, b""
        return self.reader.feed(tail)

    def _leave_out(self, data: bytes) -> None:
        if not data:
            return
        if self.reader.midline:
            # It begins in the middle of a line that the reader has the beginning of.
            end = data.find(b"\n") + 1
            self.reader.feed(data[:end])
            data = data[end:]
        remember(self.reader, data)
        self.reader.skip(data.count(b"\n"))


class FileFeeder(Learner):
    """The same for a file, where lines that were left out are counted only when an event asks for its number."""

    def __init__(self, source: str, descriptor: int, size: int, matters: Matters) -> None:
        super().__init__(Reader(source, matters=matters))
        self.counted: int | None = None
        self._descriptor = descriptor
        self._size = size
        self._position = 0  # where the reader is
        self._events: list[Event] = []

    @property
    def busy(self) -> bool:
        """Whether a report is open."""
        return self.reader.busy

    def visit(self, start: int, end: int) -> None:
        """Parse the bytes from `start` to `end`, if something begins there, and what was left out before."""
        start = max(self._position, start - BEFORE)
        if start >= end:
            return
        data = _pread(self._descriptor, end - start, start)
        if not self.reader.busy and start > self._position:
            cut = data.find(b"\n") + 1
            start, data = start + cut, data[cut:]
        if not self.reader.busy:
            first = first_pattern(data)
            if first is None and end < self._size:
                return
            if first is None:
                self._events += self.reader.feed(b"")
                return
            self._catch_up(start)
        self.learn(data)
        self._events += self.reader.feed(data)
        self._position = end

    def finish(self) -> list[Event]:
        """All events."""
        if self._position == self._size:
            self.counted = self.reader.line
        return self._events + self.reader.finish()

    def _catch_up(self, start: int) -> None:
        """Count the lines that were left out, and learn from them what machine it is."""
        if self._position and self._position < start:
            # The reader stopped within a line: give it the rest.
            piece = _pread(self._descriptor, min(BEFORE, start - self._position), self._position)
            cut = piece.find(b"\n") + 1
            if self.reader.midline and cut:
                self._events += self.reader.feed(piece[:cut])
                self._position += cut
        while self._position < start:
            data = _pread(self._descriptor, min(BLOCK, start - self._position), self._position)
            if not data:
                break
            remember(self.reader, data)
            self.reader.skip(data.count(b"\n"))
            self._position += len(data)


def remember(reader: Reader, data: bytes) -> None:
    """What lines that are left out say about the machine."""
    if not holds_any(data, CONTEXT_WORDS):
        return
    for word in CONTEXT_WORDS:
        at = data.find(word)
        found = 0
        while at >= 0 and found < 200:
            start = data.rfind(b"\n", max(0, at - 400), at) + 1
            end = data.find(b"\n", at, at + 800)
            line = read(clean(data[start : end if end > 0 else at + 800].decode("utf-8", "replace")))
            if line is not None:
                reader.context.see(line.text)
            at = data.find(word, at + len(word))
            found += 1


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(descriptor, min(size, 8 << 20), offset)):
        pieces.append(piece)
        size -= len(piece)
        offset += len(piece)
    return b"".join(pieces)
