# SPDX-License-Identifier: GPL-2.0-or-later
"""Restrictions on a process besides seccomp: limits, user, capabilities, Landlock. Each alone stops much."""

import contextlib
import ctypes
import os
import resource
import signal
import struct

__all__ = ["die_with_parent", "drop_privileges", "limit", "no_new_privileges", "restrict_paths"]

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h
# landlock(7): system calls of all instruction sets, and the rights of each version of the interface.
CREATE_RULESET, RESTRICT_SELF = 444, 446
VERSION_ONLY = 1
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version → number of rights
NET_SINCE, NET_RIGHTS = 4, 0b11
SCOPES_SINCE, SCOPES = 6, 0b11


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, now if it has; and let nobody of the same user look into this process."""
    libc = _libc()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit(*, memory: int, cpu: int | None, descriptors: int) -> None:
    """Bytes of address space, seconds of computing, open files; no file grows, none is dumped."""
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_NOFILE: descriptors,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        if value is None:
            continue
        most = resource.getrlimit(kind)[1]
        soft = value if most == resource.RLIM_INFINITY else min(value, most)
        # A second lies between the signal that says why, and the one that cannot be survived.
        hard = soft + 1 if kind == resource.RLIMIT_CPU and soft == value != most else soft
        resource.setrlimit(kind, (soft, hard))


def drop_privileges() -> None:
    """Become nobody where this is root, and keep no capability whoever it is."""
    if os.geteuid() == 0:
        # In a user namespace there may be no nobody; without capabilities root is hardly more.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc().capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))


def no_new_privileges() -> None:
    """Whatever is started from here on gains nothing: prctl(2), PR_SET_NO_NEW_PRIVS."""
    _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def restrict_paths() -> bool:
    """With Landlock, where the kernel has it: no path, no TCP, nothing outside. Whether it was done."""
    libc = _libc()
    version = libc.syscall(CREATE_RULESET, None, 0, VERSION_ONLY)
    if version < 1:
        return False
    rights = (1 << FILE_RIGHTS[max(known for known in FILE_RIGHTS if known <= version)]) - 1
    attributes = struct.pack("=Q", rights)
    if version >= NET_SINCE:
        attributes += struct.pack("=Q", NET_RIGHTS)
    if version >= SCOPES_SINCE:
        attributes += struct.pack("=Q", SCOPES)
    rules = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return False
    done = libc.syscall(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return bool(done)
