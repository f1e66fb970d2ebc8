# SPDX-License-Identifier: GPL-2.0-or-later
"""What a parent opens for its confined child: a file by its path, and what is below a root. See docs/confinement.md."""

import os
import shutil
from collections.abc import Callable, Iterable
from typing import BinaryIO

from ejectable.confine import Outside
from ejectable.errors import Denied
from ejectable.intake.beneath import Beneath
from ejectable.intake.files import (
    is_directory,
    is_file,
    is_pipe,
    is_same_file,
    open_growing,
    open_regular,
    open_stream,
)
from ejectable.intake.inputs import Input, stream_input
from ejectable.intake.limits import DEFAULT_LIMITS, Limits

__all__ = ["opening", "opening_logs"]

MOST_ROOTS = 64
TOP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def opening(allowed: Callable[[str], bool], limits: Limits = DEFAULT_LIMITS) -> Outside:
    """What a child may ask for. Nodes and folders show names and sizes; content is had of a file whose path, links
    resolved, is `allowed`.
    """
    roots: dict[str, Beneath] = {}
    streams: dict[str, Input | None] = {}

    def below(root: str) -> Beneath:
        if root not in roots:
            if len(roots) >= MOST_ROOTS:
                raise Denied(f"{root}: too many roots for one input.")
            roots[root] = Beneath(os.open(root, TOP), root)
        return roots[root]

    def stream(name: str) -> int | bool:
        # A pipe can be read once, and the child may start more than once.
        if name not in streams:
            streams[name] = stream_input(name, limits)
        source = streams[name]
        if source is None:
            return False
        descriptor = os.memfd_create("stream", os.MFD_CLOEXEC)
        with source.open() as file, os.fdopen(os.dup(descriptor), "wb") as copy:
            shutil.copyfileobj(file, copy)
        return descriptor

    def checked(descriptor: int, path: str, named: Callable[[], str]) -> int:
        if not allowed(_place(descriptor, named)):
            os.close(descriptor)
            raise Denied(f"{path}: it does not belong to what is judged.", hint="Name it on the command line.")
        return descriptor

    def opened(path: str) -> int:
        with open_regular(path) as file:
            return checked(os.dup(file.fileno()), path, lambda: path)

    def opened_below(root: str, path: str) -> int:
        tree = below(root)
        return checked(tree.file(path)[0], path, lambda: os.path.join(root, tree.resolve(path).lstrip("/")))  # noqa: PTH118

    return {
        "open": opened,
        "stream": stream,
        "is_file": is_file,
        "is_directory": is_directory,
        "top": lambda root: os.open(root, TOP),
        "file": opened_below,
        "node": lambda root, path: below(root).node(path),
        "folder": lambda root, path: below(root).folder(path),
        "resolve": lambda root, path: below(root).resolve(path),
        "target": lambda root, path: below(root).target(path),
        "dangling": lambda root, path: below(root).is_dangling(path),
    }


def opening_logs(paths: Iterable[str]) -> Outside:
    """What a child that reads logs may ask for: these files, by these names; `-` is standard input."""
    named = frozenset(paths)

    def by(opens: Callable[[str], BinaryIO]) -> Callable[[str], int]:
        def opened(path: str) -> int:
            if path not in named:
                raise Denied(f"{path}: it was not named.", hint="Name it on the command line.")
            with opens(path) as file:
                return os.dup(file.fileno())

        return opened

    return {
        "open": by(open_regular),
        "growing": by(open_growing),
        "stream": by(open_stream),
        "is_pipe": lambda path: path in named and is_pipe(path),
        "is_same_file": lambda path, device, number: path in named and is_same_file(path, int(device), int(number)),
    }


def _place(descriptor: int, named: Callable[[], str]) -> str:
    """Where an open file is, links resolved; empty where nothing tells. `named` gives a path that leads there."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  (a magic link: it is read, not followed)
    except OSError:  # no procfs here, as in a chroot without mounts: then by name, if that is still the same file
        path = os.path.realpath(named())
        try:
            return path if os.path.samestat(os.stat(path), os.fstat(descriptor)) else ""  # noqa: PTH116
        except OSError:
            return ""
