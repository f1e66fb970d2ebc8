# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps a kernel from taking a module, or makes it unwise to give it one: asked before anything is built."""

import re
from collections.abc import Callable, Iterator

from ejectable import host
from ejectable.errors import EjectableError, Missing
from ejectable.remedies.live import marker, persist, signing
from ejectable.remedies.live.target import MODULE
from ejectable.remedies.live.toolchain import compiler_for, find_headers
from ejectable.remedies.situation import Situation

__all__ = ["loaded", "obstacles", "oopsed"]

# Documentation/admin-guide/tainted-kernels.rst
TAINT_OOT, TAINT_UNSIGNED = 1 << 12, 1 << 13
FUNCTION = "vp_del_vqs"


def loaded(root: host.Root) -> bool:
    """Whether the module is in the kernel, be it on its way in or out."""
    return root.exists(f"/sys/module/{MODULE}")


def obstacles(situation: Situation, *, lasting: bool = False) -> tuple[EjectableError, ...]:
    """Everything that is in the way, each with its way out; `lasting`: of --persist too.

    Changes nothing, and asks nothing of the network.
    """
    checks: tuple[Callable[[Situation], None], ...] = (
        _own_kernel,
        oopsed,
        _live_patch,
        _modules_taken,
        _probes,
        _tainting,
        _signed,
        _crashed_before,
        _seen_through,
        _tools,
        *((_kept,) if lasting else ()),
    )
    return tuple(_failures(situation, checks))


def _failures(situation: Situation, checks: tuple[Callable[[Situation], None], ...]) -> Iterator[EjectableError]:
    for check in checks:
        try:
            check(situation)
        except EjectableError as error:
            yield error


def _own_kernel(situation: Situation) -> None:
    container = situation.facts.container
    if container:
        raise Missing(f"This is a container ({container}): its kernel is the host's.", hint="Run it on the host.")
    if situation.facts.running is None or situation.facts.running.arch not in ("x86_64", "aarch64"):
        arch = situation.facts.running.arch if situation.facts.running else None
        raise Missing(f"The module is for x86-64 and arm64, and this kernel's architecture is {arch or 'not known'}.")


def oopsed(situation: Situation) -> None:
    """Raises `Missing` where a thread has died: what it held it holds for ever."""
    if host.oopsed(situation.root):
        raise Missing(
            "This kernel has had an Oops already: what it broke cannot be repaired while it runs.",
            hint="Reboot, and repair it before anything is unplugged.",
        )


def _live_patch(situation: Situation) -> None:
    running = situation.facts.running
    for patch in running.patched if running else ():
        if patch.function in (FUNCTION, "virtio_pci_probe", "virtio_pci_remove"):
            raise Missing(
                f"A live patch is there already ({patch}): two repairs of one place are none.",
                hint="`ejectable check` (as root) tells whether it helped; else disable it first.",
            )


def _modules_taken(situation: Situation) -> None:
    root = situation.root
    if root.text("/proc/modules", 1 << 20) is None:
        raise Missing("This kernel takes no modules (CONFIG_MODULES is off).", hint="A reboot it has to be.")
    if root.text("/proc/sys/kernel/modules_disabled", 16) == "1":
        raise Missing(
            "Loading modules was switched off until the next boot (kernel.modules_disabled=1).",
            hint="Remove the setting, reboot, and repair it before it is set again.",
        )


def _probes(situation: Situation) -> None:
    """The module watches a function by a kprobe, which on x86 is called by the function tracer."""
    if situation.root.text("/proc/sys/kernel/ftrace_enabled", 16) == "0":
        raise Missing(
            "Tracing of functions is switched off (kernel.ftrace_enabled=0): the module could watch nothing.",
            hint="sudo sysctl kernel.ftrace_enabled=1",
        )


def _tainting(situation: Situation) -> None:
    """panic_on_taint=<bitmask>: a module from outside the tree would panic the kernel at once."""
    running = situation.facts.running
    words = (running.command_line if running else None) or ""
    match = re.search(r"(?:^|\s)panic_on_taint=(?:0x)?([0-9a-fA-F]{1,16})", words)
    unsigned = 0 if signing.needed(situation) else TAINT_UNSIGNED
    if match and int(match[1], 16) & (TAINT_OOT | unsigned):
        raise Missing(
            f"This kernel was booted with panic_on_taint={match[1]}: a module from outside its tree would panic it.",
            hint="Remove it from the kernel's command line, or take another remedy.",
        )


def _signed(situation: Situation) -> None:
    if signing.needed(situation):
        signing.key(situation)


def _crashed_before(situation: Situation) -> None:
    marker.ask(situation.root)


def _seen_through(situation: Situation) -> None:
    """Without the kernel's memory and types nothing can be proven before, or verified after."""
    running = situation.facts.running
    if running and running.lockdown == "confidentiality":
        raise Missing(
            "The kernel is locked down (confidentiality): its memory cannot be read, so nothing can be verified.",
            hint="Boot with lockdown at `integrity`, or take another remedy.",
        )
    if running and not running.has_memory:
        raise Missing("/proc/kcore is not there (CONFIG_PROC_KCORE): nothing could be verified.")
    if not situation.root.exists("/sys/kernel/btf/vmlinux"):
        raise Missing("This kernel has no types of its own (/sys/kernel/btf/vmlinux): the layout is not known.")


def _tools(situation: Situation) -> None:
    compiler_for(find_headers(situation.root, _release(situation), situation.facts.host.os))


def _kept(situation: Situation) -> None:
    persist.ask(situation.root)


def _release(situation: Situation) -> str:
    running = situation.facts.running
    if running is None or not running.release or "/" in running.release:
        raise Missing("The running kernel's release is not known.")
    return running.release
