# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that a confined process may make: an allow-list, as a BPF program (seccomp(2), linux/filter.h).

What is not on it fails with EPERM. Nothing here opens a file, makes a socket, starts a program or a process, sends a
signal, or looks into another process; who tries what no library of ours ever does is killed.
Numbers: arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h.
"""

import ctypes
import errno
import fcntl
import platform
import struct
import termios
from collections.abc import Iterable

__all__ = ["allow_only", "supported"]

X86_64 = {
    "read": 0, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10,
    "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19,
    "access": 21, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60,
    "uname": 63, "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "sigaltstack": 131, "gettid": 186, "futex": 202,
    "sched_getaffinity": 204, "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "ppoll": 271,
    "preadv": 295, "getrandom": 318, "membarrier": 324, "preadv2": 327, "statx": 332, "faccessat2": 439,
}  # fmt: skip
AARCH64 = {
    "getcwd": 17, "faccessat": 48, "close": 57, "getdents64": 61, "lseek": 62, "read": 63, "readv": 65, "pread64": 67,
    "preadv": 69, "preadv2": 286,
    "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98,
    "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
    "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
    "rt_sigreturn": 139, "times": 153, "uname": 160, "getrusage": 165, "gettimeofday": 169, "getpid": 172,
    "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214,
    "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "membarrier": 283,
    "statx": 291, "faccessat2": 439,
}  # fmt: skip
# Those that are allowed for one descriptor each.
WRITE, SENDMSG, RECVMSG, SENDTO = "write", "sendmsg", "recvmsg", "sendto"
# And of the many things that these two do: reading flags, a second number for an open folder, waiting or not.
FCNTL, IOCTL = "fcntl", "ioctl"
COMMANDS = (
    (FCNTL, fcntl.F_GETFD),
    (FCNTL, fcntl.F_SETFD),
    (FCNTL, fcntl.F_GETFL),
    (FCNTL, fcntl.F_DUPFD_CLOEXEC),
    (IOCTL, termios.FIONBIO),
)
X86_64_SOME = {WRITE: 1, SENDTO: 44, SENDMSG: 46, RECVMSG: 47, FCNTL: 72, IOCTL: 16}
AARCH64_SOME = {WRITE: 64, SENDTO: 206, SENDMSG: 211, RECVMSG: 212, FCNTL: 25, IOCTL: 29}
# Nothing of ours starts a program, makes a socket or looks into another process, not even in vain: execve, execveat,
# socket, connect, ptrace, process_vm_readv, process_vm_writev, bpf. Whoever does is not to be believed any more.
FATAL = {"x86_64": (59, 322, 41, 42, 101, 310, 311, 321), "aarch64": (221, 281, 198, 203, 117, 270, 271, 280)}
# clone, clone3, and what the C library does in a new thread: set_robust_list, rseq.
THREADS = {"x86_64": (56, 435, 273, 334), "aarch64": (220, 435, 99, 293)}
# CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID (linux/sched.h), as glibc
# asks for; musl adds CLONE_DETACHED.
THREAD_FLAGS = (0x3D0F00, 0x7D0F00)
# AUDIT_ARCH_* (linux/audit.h): a process could otherwise make the calls of the 32-bit table, with other numbers.
ARCHES = {"x86_64": (0xC000003E, X86_64, X86_64_SOME), "aarch64": (0xC00000B7, AARCH64, AARCH64_SOME)}

# BPF (linux/bpf_common.h) and what seccomp reads: struct seccomp_data.
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06
NUMBER, ARCH, ARGUMENTS = 0, 4, 16
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
NO_SUCH_CALL = 0x00050000 | errno.ENOSYS
PR_SET_SECCOMP, MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def supported() -> bool:
    """Whether the calls of this instruction set are known here."""
    return platform.machine() in ARCHES


def allow_only(*, writes: Iterable[int], asks: int, threads: bool = False) -> bool:
    """Confine this process for good: it writes to `writes`, sends and receives at `asks`, and may start threads of its
    own where it is told so. Whether the kernel did so; needs no_new_privs.
    """
    if not supported():
        return False
    program = _program(writes, asks, threads=threads)
    filter_ = _Program(len(program) // 8, program)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(filter_), 0, 0) == 0)


def _program(writes: Iterable[int], asks: int, *, threads: bool) -> bytes:
    arch, allowed, some = ARCHES[platform.machine()]
    code = _step(LOAD, ARCH) + _step(EQUALS, arch, 1, 0) + _step(RETURN, KILL) + _step(LOAD, NUMBER)
    for number in allowed.values():
        code += _step(EQUALS, number, 0, 1) + _step(RETURN, ALLOW)
    for number in FATAL[platform.machine()]:
        code += _step(EQUALS, number, 0, 1) + _step(RETURN, KILL)
    for descriptor in writes:
        code += _if(some[WRITE], _argument(0, descriptor))
    for name in (SENDMSG, RECVMSG, SENDTO):
        code += _if(some[name], _argument(0, asks))
    for name, command in COMMANDS:
        code += _if(some[name], _argument(1, command))
    if threads:
        code += _threads(*THREADS[platform.machine()])
    return code + _step(RETURN, REFUSE)


def _threads(clone: int, clone3: int, *others: int) -> bytes:
    """Threads and nothing else that clone(2) makes. The flags of clone3 lie in memory, where no filter can read them:
    the C library takes clone where there is no clone3.
    """
    code = _step(EQUALS, clone3, 0, 1) + _step(RETURN, NO_SUCH_CALL)
    for number in others:
        code += _step(EQUALS, number, 0, 1) + _step(RETURN, ALLOW)
    for flags in THREAD_FLAGS:
        code += _if(clone, _argument(0, flags))
    return code


def _if(number: int, test: bytes) -> bytes:
    """Allow the call of this number if the test, which ends the program otherwise, lets it through."""
    body = test + _step(RETURN, ALLOW) + _step(LOAD, NUMBER)
    # A test that fails jumps over RETURN ALLOW to the load: the next rule sees the number again.
    return _step(EQUALS, number, 0, len(body) // 8) + body


def _argument(index: int, value: int) -> bytes:
    # The lower half of a 64-bit argument: what the kernel takes of an int.
    return _step(LOAD, ARGUMENTS + 8 * index) + _step(EQUALS, value, 0, 1)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
