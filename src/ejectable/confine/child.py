# SPDX-License-Identifier: GPL-2.0-or-later
"""One piece of work in a confined child: forked, fenced in, waited for, and its answer checked."""

import errno
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from ejectable import errors
from ejectable.confine import fences, seccomp
from ejectable.confine.imports import TRY, Absent, NeedsImport, bring_in
from ejectable.errors import EjectableError, Ended, OurFault

__all__ = ["Fence", "Outside", "ask", "confined", "run"]

T = TypeVar("T")
# What the parent does for the child, by name. Arguments are texts; a number that comes back is a descriptor, which is
# handed over and closed here.
Outside = Mapping[str, Callable[..., int | str | bool]]
# Each start brings in one more module that the work turned out to need.
MOST_STARTS = 64
LONGEST_REQUEST = LONGEST_REPLY = 1 << 14  # bytes: a path
DEBUG = "EJECTABLE_DEBUG"
# Lone surrogates, by which Python spells bytes that are no UTF-8, travel as characters for private use.
THERE = {0xDC80 + byte: 0x10_DC80 + byte for byte in range(0x80)}
BACK = {there: here for here, there in THERE.items()}


class Fence(msgspec.Struct, frozen=True):
    """How much a child may take."""

    memory: int = 3 << 30  # bytes of address space
    cpu: int = 600  # seconds of computing
    seconds: int = 1200  # by the clock on the wall
    answer: int = 64 << 20  # bytes that come back
    descriptors: int = 64


class _Answer(msgspec.Struct, frozen=True):
    """What the child sends: the value, unless one of the other fields says how it went."""

    value: bytes = b""  # what the work returned
    escaped: bool = False  # its texts hold what stands for lone surrogates, which no encoding can carry
    error: str | None = None  # the class of an EjectableError
    message: str = ""
    hint: str | None = None
    needs: str | None = None  # a module that has to be imported before the fence is closed


class _Reply(msgspec.Struct, frozen=True):
    """The parent's answer to a request; a descriptor comes beside it."""

    value: bytes | bool | None = None
    error: str | None = None  # the class of an EjectableError
    number: int = 0  # of a system call's error
    message: str = ""
    hint: str | None = None


_to_parent: socket.socket | None = None


def confined() -> bool:
    """Whether this process is a confined child: what it wants to open, it asks for."""
    return _to_parent is not None


def ask(what: str, *arguments: str) -> int | str | bool:
    """What the parent answers: a descriptor, a text, or yes or no. Raises what it raised."""
    if _to_parent is None:
        raise OurFault("Nobody outside answers a process that is not confined.")
    request = msgspec.msgpack.encode([what.encode(), *map(os.fsencode, arguments)])
    if len(request) > LONGEST_REQUEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), arguments[-1])
    _to_parent.send(request)
    data, descriptors, _, _ = socket.recv_fds(_to_parent, LONGEST_REPLY, 1)
    reply = msgspec.msgpack.decode(data, type=_Reply)
    if reply.error is not None:
        raise _error(reply.error, reply.message, reply.hint)
    if reply.number:
        raise OSError(reply.number, reply.message, arguments[-1])
    if isinstance(reply.value, bytes):
        return os.fsdecode(reply.value)
    return descriptors[0] if reply.value is None else reply.value


def run(work: Callable[[], T], *, into: Any, outside: Outside | None = None, fence: Fence | None = None) -> T:
    """What `work` returns, done in a confined child; `into` is its type. In a confined child it is just called.

    `outside` holds what the work may `ask` for. Raises what the work raises of `EjectableError`, and
    `Ended` where the child died, ran out of memory or time, or answered nonsense.
    """
    if confined():
        return work()
    absent = Absent()
    for _ in range(MOST_STARTS):
        answer = _once(work, outside or {}, fence or Fence(), absent)
        if answer.needs is not None:
            bring_in(answer.needs, absent)
        elif answer.error is not None:
            raise _error(answer.error, answer.message, answer.hint)
        else:
            try:
                value: T = _value(answer, into)
            except ValueError as error:
                raise Ended(f"The confined process gave no proper answer ({error}).", hint=TRY) from error
            return value
    raise Ended("The confined process asked for one module after the other.", hint=TRY)


def _value(answer: _Answer, into: Any) -> Any:
    if not answer.escaped:
        return msgspec.msgpack.decode(answer.value, type=into)
    return msgspec.convert(_texts(msgspec.msgpack.decode(answer.value), BACK), into)


def _texts(value: Any, table: dict[int, int]) -> Any:
    """The same plain value with other characters in its texts."""
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, dict):
        return {_texts(key, table): _texts(item, table) for key, item in value.items()}
    return [_texts(item, table) for item in value] if isinstance(value, list | tuple) else value


def _once(work: Callable[[], object], outside: Outside, fence: Fence, absent: Absent) -> _Answer:
    """Start one child and hear it to its end."""
    answers, to_answers = os.pipe()
    requests, to_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            # A thread that draws a progress bar is not copied; the child draws nothing and takes none of its locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError as error:
        for descriptor in (answers, to_answers):
            os.close(descriptor)
        requests.close()
        to_requests.close()
        raise Ended(f"No process could be started ({error.strerror}).", hint=TRY) from error
    if not child:
        code = 1
        try:
            _close_in(parent, to_answers, to_requests, fence)
            _talk(work, to_answers, to_requests, absent)
            code = 0
        except BaseException:  # noqa: BLE001  (nothing may run on behind the fork)
            if os.environ.get(DEBUG):
                _trace()
        finally:
            os._exit(code)
    os.close(to_answers)
    to_requests.close()
    try:
        data, late = _listen(answers, requests, outside, fence)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(answers)
        requests.close()
    try:
        return msgspec.msgpack.decode(data, type=_Answer)
    except ValueError:
        raise Ended(_how(status, fence, late=late), hint=TRY) from None


def _how(status: int, fence: Fence, *, late: bool) -> str:
    """How a child ended that gave no answer, as a sentence."""
    if late:
        return f"The process that read it was stopped after {fence.seconds} seconds."
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return f"The process that read it was stopped after {fence.cpu} seconds of computing."
    if code < 0:
        return f"The process that read it was killed by {_signal(-code)} before it had an answer."
    return f"The process that read it ended with code {code} before it had an answer."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _listen(answers: int, requests: socket.socket, outside: Outside, fence: Fence) -> tuple[bytes, bool]:
    """All that the child answers, its requests served meanwhile; and whether it took too long."""
    deadline = time.monotonic() + fence.seconds
    data = bytearray()
    poll = select.poll()
    poll.register(answers, select.POLLIN)
    poll.register(requests, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return b"", True
        for descriptor, _ in poll.poll(left * 1000):
            if descriptor == answers:
                piece = os.read(answers, 1 << 16)
                data += piece
                if not piece or len(data) > fence.answer:
                    return bytes(data[: fence.answer]), False
            elif not _serve(requests, outside):
                poll.unregister(requests)


def _serve(requests: socket.socket, outside: Outside) -> bool:
    """Do one thing that was asked for and send what came of it; whether the child still asks."""
    try:
        asked = requests.recv(LONGEST_REQUEST)
        if not asked:
            return False
        answer = _done(asked, outside)
        if isinstance(answer, _Reply):
            requests.send(msgspec.msgpack.encode(answer))
            return True
        try:
            socket.send_fds(requests, [msgspec.msgpack.encode(_Reply())], [answer])
        finally:
            os.close(answer)
    except OSError:  # it died in between
        return False
    return True


def _done(asked: bytes, outside: Outside) -> _Reply | int:
    """What came of a request: a descriptor, or a reply."""
    try:
        what, *arguments = msgspec.msgpack.decode(asked, type=list[bytes])
        work = outside.get(what.decode("ascii", "replace"))
        if work is None:
            return _Reply(error="Missing", message="Nobody does that for this process.")
        answer = work(*map(os.fsdecode, arguments))
        if isinstance(answer, bool):
            return _Reply(value=answer)
        return _Reply(value=os.fsencode(answer)) if isinstance(answer, str) else answer
    except EjectableError as error:
        return _Reply(error=type(error).__name__, message=error.message, hint=error.hint)
    except OSError as error:
        return _Reply(number=error.errno or errno.EIO, message=error.strerror or "")
    except (ValueError, TypeError):  # no request, or no path
        return _Reply(number=errno.EINVAL, message=os.strerror(errno.EINVAL))


def _error(name: str, message: str, hint: str | None) -> EjectableError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, EjectableError)):
        kind = OurFault
    return kind(message, hint=hint)


# In the child


def _talk(work: Callable[[], object], answers: int, requests: socket.socket, absent: Absent) -> None:
    global _to_parent  # noqa: PLW0603  (this process is another one from here on)
    _to_parent = requests
    absent.watch()
    view = memoryview(msgspec.msgpack.encode(_answer(work)))
    while view:
        view = view[os.write(answers, view) :]


def _close_in(parent: int, answers: int, requests: socket.socket, fence: Fence) -> None:
    """Give up everything but the two ways out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which kills this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fences.die_with_parent(parent)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1) if os.environ.get(DEBUG) else (0, 1, 2):
        os.dup2(null, standard)
    kept = sorted((2, answers, requests.fileno()))
    for low, high in zip(kept, [*kept[1:], _most_descriptors()], strict=True):
        os.closerange(low + 1, high)
    fences.limit(memory=fence.memory, cpu=fence.cpu, descriptors=fence.descriptors)
    fences.drop_privileges()
    fences.no_new_privileges()
    fences.restrict_paths()
    seccomp.allow_only(writes=(answers, 2), asks=requests.fileno())


def _most_descriptors() -> int:
    """One more than the highest descriptor that is open."""
    try:
        return 1 + max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  (names are wanted)
    except (OSError, ValueError):
        return min(os.sysconf("SC_OPEN_MAX"), 1 << 16)


def _trace() -> None:
    """Show where the present exception came from; what `traceback` would be imported for is built in."""
    kind, error, where = sys.exc_info()
    if kind is not None and error is not None:
        sys.__excepthook__(kind, error, where)


def _answer(work: Callable[[], object]) -> _Answer:
    try:
        value = work()
        try:
            return _Answer(value=msgspec.msgpack.encode(value))
        except UnicodeEncodeError:  # the name of a file that is no UTF-8
            plain = _texts(msgspec.to_builtins(value), THERE)
            return _Answer(value=msgspec.msgpack.encode(plain), escaped=True)
    except NeedsImport as needed:
        return _Answer(needs=needed.name)
    except MemoryError:
        return _Answer(error="Ended", message="The process that read it ran out of memory.", hint=TRY)
    except EjectableError as error:
        return _Answer(error=type(error).__name__, message=error.message, hint=error.hint)
    except BaseException as error:  # noqa: BLE001  (whatever it is: nobody above this knows it)
        if os.environ.get(DEBUG):
            _trace()
        return _Answer(
            error="OurFault",
            message=f"This is a bug in ejectable: {type(error).__name__}: {error}",
            hint="Run the same command with --debug and report what it prints.",
        )
