# SPDX-License-Identifier: GPL-2.0-or-later
"""Inside a confined child: fenced in, it works, answers, and asks its parent for what it cannot have itself."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ejectable import errors
from ejectable.confine import fences, seccomp
from ejectable.confine.imports import TRY, Absent, NeedsImport
from ejectable.confine.scarce import memory_is_scarce
from ejectable.confine.wire import HEAD, LONGEST_REPLY, LONGEST_REQUEST, Answer, Fence, Reply, encoded, name_of
from ejectable.errors import EjectableError, OurFault

__all__ = ["DEBUG", "ask", "confined", "data_of", "error_of", "live"]

DEBUG = "EJECTABLE_DEBUG"
NO_MEMORY = "The process that read it ran out of memory."
MOST_DATA = 1 << 20  # bytes of a file of ours

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
    reply = msgspec.msgpack.decode(data, type=Reply)
    if reply.error is not None:
        raise error_of(reply.error, reply.message, reply.hint)
    if reply.number:
        raise OSError(reply.number, reply.message, arguments[-1])
    if isinstance(reply.value, bytes):
        return os.fsdecode(reply.value)
    return descriptors[0] if reply.value is None else reply.value


def data_of(package: str, name: str) -> bytes:
    """The content of a file that belongs to a package of ours."""
    if not confined():
        import importlib.resources

        return importlib.resources.files(package).joinpath(name).read_bytes()
    with os.fdopen(int(ask("data", package, name)), "rb") as file:
        return file.read(MOST_DATA)


def error_of(name: str, message: str, hint: str | None) -> EjectableError:
    """The error that was raised on the other side."""
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, EjectableError)):
        kind = OurFault
    if issubclass(kind, errors.NotSupported):  # it wants more than a sentence
        kind = errors.BadInput
    return kind(message, hint=hint)


def live(
    work: Callable[[], Iterable[object]],
    *,
    parent: int,
    answers: int,
    requests: socket.socket,
    fence: Fence,
    absent: Absent,
) -> None:
    """Close the fence, do the work and answer each thing that it gives. Never returns: the process ends here."""
    global _to_parent  # noqa: PLW0603  (this process is another one from here on)
    code = 1
    try:
        _close_in(parent, answers, requests, fence)
        _to_parent = requests
        absent.watch(lambda name: ask("module", name))
        for answer in _answers(work):
            frame = msgspec.msgpack.encode(answer)
            view = memoryview(len(frame).to_bytes(HEAD, "big") + frame)
            while view:
                view = view[os.write(answers, view) :]
        code = 0
    except BaseException:  # noqa: BLE001  (nothing may run on behind the fork)
        if os.environ.get(DEBUG):
            _trace()
    finally:
        os._exit(code)


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
    seccomp.allow_only(writes=(answers, 2), asks=requests.fileno(), threads=fence.threads)


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


def _answers(work: Callable[[], Iterable[object]]) -> Iterator[Answer]:
    """Each thing that the work gives, and how it ended."""
    try:
        for value in work():
            yield encoded(value)
        yield Answer(end=True)
    except NeedsImport as needed:
        yield Answer(needs=needed.name)
    except MemoryError:
        yield Answer(error="Ended", message=NO_MEMORY, hint=TRY)
    except EjectableError as error:
        yield Answer(error=name_of(error), message=error.message, hint=error.hint)
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever it is: nobody above this knows it)
        if os.environ.get(DEBUG):
            _trace()
        if isinstance(error, ImportError | SystemError) and memory_is_scarce():  # a library that could not be loaded
            yield Answer(error="Ended", message=NO_MEMORY, hint=TRY)
            return
        yield Answer(
            error="OurFault",
            message=f"This is a bug in ejectable: {type(error).__name__}: {error}",
            hint="Run the same command with --debug and report what it prints.",
        )
