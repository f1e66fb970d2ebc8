# SPDX-License-Identifier: GPL-2.0-or-later
"""A confined child as its parent sees it: started, heard, served, and its end explained."""

import contextlib
import errno
import os
import select
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ejectable.confine.child import live
from ejectable.confine.imports import TRY, Absent, code_of
from ejectable.confine.wire import HEAD, LONGEST_REQUEST, Answer, Fence, Outside, Reply, name_of
from ejectable.errors import Denied, EjectableError, Ended

__all__ = ["Process", "step"]

OUR_PACKAGE = "ejectable"
PIECE = 1 << 16  # bytes: what a pipe holds (pipe(7)), which no child here can change
READS = 4  # one after the other: what was written is heard, and a child that writes on does not keep us


class Process:
    """One child; `end` it. Raises `Ended` where no process can be started."""

    def __init__(self, work: Callable[[], Iterable[object]], *, outside: Outside, fence: Fence, absent: Absent) -> None:
        self.left = fence.seconds  # that it may still take; None where nobody counts
        self._fence = fence
        self._outside: Outside = {"module": code_of, "data": _data_of, "alive": self._alive, **outside}
        self._buffer = bytearray()
        self._over = False  # nothing comes any more
        self._late = False
        self._too_much = False
        self.answers, to_answers = os.pipe()
        self.requests, to_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asks = True
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # A thread that draws a progress bar is not copied; the child draws nothing and takes none of its locks.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
        except OSError as error:
            for descriptor in (self.answers, to_answers):
                os.close(descriptor)
            self.requests.close()
            to_requests.close()
            raise Ended(f"No process could be started ({error.strerror}).", hint=TRY) from error
        if not self.pid:
            live(work, parent=parent, answers=to_answers, requests=to_requests, fence=fence, absent=absent)
        os.close(to_answers)
        to_requests.close()
        os.set_blocking(self.answers, False)

    @property
    def descriptors(self) -> list[int]:
        """What is to be waited for."""
        return [self.answers, self.requests.fileno()] if self._asks else [self.answers]

    def took(self, seconds: float) -> bool:
        """Count what it took; whether that was too long."""
        if self.left is not None:
            self.left -= seconds
            self._late = self.left <= 0
        return self._late

    def hear(self) -> list[Answer]:
        """The answers that are there; sets `over` at the end, and where one is no answer or too long."""
        for _ in range(READS):
            if self._over:
                break
            try:
                piece = os.read(self.answers, PIECE)
            except BlockingIOError:
                break
            self._buffer += piece
            self._over = not piece
        return self._whole()

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        return self._over

    def _whole(self) -> list[Answer]:
        found = []
        at = 0
        while len(self._buffer) - at >= HEAD:
            size = int.from_bytes(self._buffer[at : at + HEAD], "big")
            if size > self._fence.answer:
                self._over = self._too_much = True
                break
            if len(self._buffer) - at - HEAD < size:
                break
            try:
                found.append(msgspec.msgpack.decode(self._buffer[at + HEAD : at + HEAD + size], type=Answer))
            except ValueError:
                self._over = True
                break
            at += HEAD + size
        del self._buffer[:at]
        return found

    def serve(self) -> None:
        """Do one thing that was asked for and send what came of it."""
        try:
            asked = self.requests.recv(LONGEST_REQUEST)
            if not asked:
                self._asks = False
                return
            answer = _done(asked, self._outside)
            if isinstance(answer, Reply):
                self.requests.send(msgspec.msgpack.encode(answer))
                return
            try:
                socket.send_fds(self.requests, [msgspec.msgpack.encode(Reply())], [answer])
            finally:
                os.close(answer)
        except OSError:  # it died in between
            self._asks = False

    def _alive(self) -> bool:
        self.left = self._fence.seconds
        return True

    def end(self) -> Ended:
        """Kill it, if it lives, and clear up; how it ended, for whoever still expected an answer."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.answers)
        self.requests.close()
        return Ended(self._how(status), hint=TRY)

    def _how(self, status: int) -> str:
        """How a child ended that gave no answer, as a sentence."""
        if self._late:
            return f"The process that read it was stopped after {self._fence.seconds:g} seconds."
        if self._too_much:
            return f"The process that read it gave more than {self._fence.answer >> 20} MiB at once, and was stopped."
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            return f"The process that read it was stopped after {self._fence.cpu} seconds of computing."
        if code < 0:
            return f"The process that read it was killed by {_signal(-code)} before it had an answer."
        return f"The process that read it ended with code {code} before it had an answer."


def step(processes: Sequence[Process]) -> list[tuple[Process, list[Answer]]]:
    """Wait until something comes from one of them, and serve what they ask for; the answers that came.

    A process of which nothing comes any more, or that took too long, is listed without an answer.
    """
    began = time.monotonic()
    poll = select.poll()
    of: dict[int, Process] = {}
    for process in processes:
        for descriptor in process.descriptors:
            poll.register(descriptor, select.POLLIN)
            of[descriptor] = process
    left = min((process.left for process in processes if process.left is not None), default=None)
    ready = poll.poll(None if left is None else max(left, 0) * 1000)
    found = []
    # Requests first: whoever serves one may want to hear what was answered before it.
    for descriptor, process in ((descriptor, of[descriptor]) for descriptor, _ in ready):
        if descriptor != process.answers:
            process.serve()
    for process in {of[descriptor]: None for descriptor, _ in ready}:
        answers = process.hear()
        if answers or process.over:
            found.append((process, answers))
    took = time.monotonic() - began
    listed = [process for process, _ in found]
    found += [(process, []) for process in processes if process.took(took) and process not in listed]
    return found


def _done(asked: bytes, outside: Outside) -> Reply | int:
    """What came of a request: a descriptor, or a reply."""
    try:
        what, *arguments = msgspec.msgpack.decode(asked, type=list[bytes])
        work = outside.get(what.decode("ascii", "replace"))
        if work is None:
            return Reply(error="Missing", message="Nobody does that for this process.")
        answer = work(*map(os.fsdecode, arguments))
        if isinstance(answer, bool):
            return Reply(value=answer)
        return Reply(value=os.fsencode(answer)) if isinstance(answer, str) else answer
    except EjectableError as error:
        return Reply(error=name_of(error), message=error.message, hint=error.hint)
    except OSError as error:
        return Reply(number=error.errno or errno.EIO, message=error.strerror or "")
    except (ValueError, TypeError):  # no request, or no path
        return Reply(number=errno.EINVAL, message=os.strerror(errno.EINVAL))


def _data_of(package: str, name: str) -> int:
    """A descriptor of a file that belongs to one of our packages."""
    if package.partition(".")[0] != OUR_PACKAGE or "/" in name:
        raise Denied(f"{name}: no file of ours.")
    import importlib.resources

    data = importlib.resources.files(package).joinpath(name).read_bytes()
    descriptor = os.memfd_create("data", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
