# SPDX-License-Identifier: GPL-2.0-or-later
"""What strace(1) saw of a command: each program that it started, each file that it changed, each connection.

The audit hook sees what Python is asked for, by the name that it is asked by; strace sees what the kernel was asked
for, by threads, children and libraries too, and names each descriptor's file.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["STRACE", "faults_of"]

# What changes something: by a path, by a descriptor of it, or by what is started or reached.
OPENING = "open,openat,openat2,creat"
CHANGING = (
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,"
    "truncate,ftruncate,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,"
    "removexattr,lremovexattr,fremovexattr,fallocate"
)
NEVER = "mount,umount2,pivot_root,chroot,init_module,finit_module,delete_module,kexec_load,reboot,swapon,bpf,ptrace"
STRACE = (
    "strace", "-f", "-qq", "-y", "-s", "4096", "--seccomp-bpf", "-e", "signal=none",
    "-e", f"trace={OPENING},{CHANGING},{NEVER},execve,execveat,connect,bind",
)  # fmt: skip
CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>.*)$", re.DOTALL)
UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE")
OPENED = re.compile(r"^\d+<(.*)>$")
# A path, and the descriptor that it starts from: 5</some/folder>, "name"; or a descriptor alone.
PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<((?:[^>\\]|\\.)*)>)?)?(?:, )?"((?:[^"\\]|\\.)*)"|(?<![\w"])\d+<([^>]*)>')
ANYBODYS = re.compile(
    r"/dev/(null|tty|pts/\d+)|/proc/(self|\d+)/(task/\d+/)?(comm|oom_score_adj)|(pipe|socket|anon_inode):.*"
)


def faults_of(log: Path, own: tuple[str, ...], allowed: frozenset[str]) -> Iterator[str]:
    """What the trace holds that may not be there, as sentences. `own` are the folders that may be written in."""
    begun = False  # with the command itself
    for name, arguments, result in _calls(log):
        if result.startswith(("-1", "?")):
            continue
        if name in ("execve", "execveat"):
            program = PLACE.search(arguments)
            started = Path(program[2] if program and program[2] else arguments).name
            if begun and started not in allowed:
                yield f"it started {started} (strace)"
            begun = begun or started != "setpriv"
        elif name in OPENING.split(","):
            opened = OPENED.match(result)
            where = opened[1] if opened else arguments
            if (name == "creat" or WRITES.search(arguments.rpartition('"')[2])) and not _ours(where, own):
                yield f"it opened {where} for writing (strace)"
        elif name in ("connect", "bind"):
            if "AF_NETLINK" not in arguments and not _absent(arguments):
                yield f"{name} to {arguments[:200]} (strace)"
        elif name in NEVER.split(","):
            yield f"it called {name}({arguments[:200]}) (strace)"
        else:
            for where in _places(arguments):
                if not _ours(where, own):
                    yield f"{name} of {where} (strace)"


def _absent(arguments: str) -> bool:
    """Local services that the C library asks for names of users and machines, which is no doing of the tree's."""
    return any(path in arguments for path in ("/run/nscd", "/var/run/nscd", "/run/systemd/userdb", "/dev/log"))


def _ours(where: str, own: tuple[str, ...]) -> bool:
    return any(where == folder or where.startswith(f"{folder}/") for folder in own) or bool(ANYBODYS.fullmatch(where))


def _places(arguments: str) -> Iterator[str]:
    for match in PLACE.finditer(arguments):
        folder, name, file = match.groups()
        if file is not None:
            yield file.removesuffix(" (deleted)")
        else:
            yield os.path.normpath(Path(folder or "/", name))


def _calls(log: Path) -> Iterator[tuple[str, str, str]]:
    """(name, arguments, result) of each call, those that others interrupted put together again."""
    begun: dict[str, str] = {}
    for line in log.read_text(errors="surrogateescape").splitlines():
        if unfinished := UNFINISHED.match(line):
            begun[unfinished[1]] = f"{unfinished[1]} {unfinished[2]}"
            continue
        whole = line
        if resumed := RESUMED.match(line):
            whole = begun.pop(resumed[1], "") + resumed[2]
        if call := CALL.match(whole):
            yield call["name"], call["arguments"], call["result"].strip()
