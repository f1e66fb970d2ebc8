# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest gets a processor, some memory and what it is handed: no path of the host, no way out, no privileges."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ejectable.lab.case import AXES, DEVICES, Case
from ejectable.lab.machines import ARCHES, command_line, parts
from ejectable.lab.matrix import plan
from tests.lab.test_lab import command, qemus_of
from tests.lab.test_matrix import kernel


def arguments(case: Case) -> list[str]:
    return command_line(
        case,
        accelerator="tcg",
        kernel="/proc/self/fd/8",
        initramfs="/proc/self/fd/9",
        append="",
        console_fd=6,
        qmp_fd=7,
    )


def test_no_case_names_a_path_of_the_host_or_opens_a_socket() -> None:
    made = plan(kernel(), AXES)
    every = {skipped.case for skipped in made.skipped} | set(made.cases)
    for case in every:
        line = [word for word in arguments(case) if not word.startswith("/proc/self/fd/")]
        assert not [word for word in line[1:] if re.search(r"(?:^|[=:,])/|\.\./|hostfwd|guestfwd|tcp:|unix:", word)]
        assert "-sandbox" in line
        assert line[line.index("-sandbox") + 1].startswith("on,")
        assert {"-nodefaults", "-no-user-config"} <= set(line)
        assert ARCHES[case.machine] in ("x86_64", "aarch64")


@pytest.mark.parametrize("device", DEVICES)
def test_only_a_nic_has_a_network_and_that_one_leads_nowhere(device: str) -> None:
    case = Case("pc", device=device)
    words = " ".join(arguments(case))
    assert ("restrict=on" in words) == ("-netdev" in words) == (device == "nic")
    backend = parts(case, 1).backend  # of the device that is plugged later
    assert (backend is not None and backend[0] == "netdev_add") == (device == "nic")
    if device == "nic":
        assert backend is not None
        assert backend[1]["restrict"] is True


def files_of_the_host(descriptors: Path) -> list[str]:
    """What a process holds open that is neither a pipe, a socket, an event nor memory."""
    known = re.compile(r"/dev/null|pipe:.*|socket:.*|anon_inode:.*|/memfd:(?:kernel|initramfs|\S*) \(deleted\)")
    opened = []
    for path in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed between the list and the look
            opened.append(str(path.readlink()))
    assert opened, "the guest is gone"
    return [path for path in opened if not known.fullmatch(path)]


@pytest.mark.guest
@pytest.mark.kernels
def test_a_running_qemu_is_confined_and_needs_no_privilege(stock: Path, tmp_path: Path) -> None:
    without = ["setpriv", "--bounding-set=-all", "--no-new-privs"] if shutil.which("setpriv") else []
    if os.geteuid():
        without = []  # as somebody else than root there is nothing to drop
    process = subprocess.Popen([*without, *command(stock, "--device", "nic"), "--evidence", str(tmp_path)])
    deadline = time.monotonic() + 60
    guests: list[int] = []
    try:
        while not guests and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            guests = qemus_of(process.pid)
        (guest,) = guests
        folder = Path(f"/proc/{guest}")
        while "Seccomp:\t2" not in (status := (folder / "status").read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)  # the sandbox is closed once QEMU has set itself up
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
        limits = {line[:26].strip(): line[26:].split()[0] for line in (folder / "limits").read_text().splitlines()}
        assert limits["Max file size"] == limits["Max core file size"] == "0"
        assert int(limits["Max address space"]) <= 6 << 30
        assert int(limits["Max cpu time"]) < 3600
        # QEMU reads its own firmware after the sandbox is closed; from then on it holds no file of the host.
        while (unknown := files_of_the_host(folder / "fd")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not unknown
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
