# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix live`: the plan, loading the module, and taking it out again."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ejectable import host
from ejectable.errors import EjectableError, Missing, WrongUsage
from ejectable.model import Applied, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.commands import run, run_checked
from ejectable.remedies.live import evidence, guards, marker, persist, signing
from ejectable.remedies.live.build import build
from ejectable.remedies.live.target import MODULE, Target
from ejectable.remedies.live.toolchain import Compiler, Headers, compiler_for, find_headers
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import AddToDkms, EnableUnits, LoadModule, Reach, ReloadUnits, StartUnits
from ejectable.remedies.workspace import workspace

__all__ = ["Live"]

LOADING_S = 60.0
APPLY, PERSIST, UNDO = (f"sudo ejectable fix live {words}" for words in ("--apply", "--apply --persist", "--undo"))
COST = "no reboot and no downtime; the kernel is tainted (a module from outside its tree), until the next boot"
UNCOVERED = (
    "Not covered: the time from power on until it is loaded, a kernel started by kexec until its own unit has run, and "
    "resume from hibernation, where a fresh kernel without it lets go of the devices."
)
REFUSED = "The kernel's log has the reason: `dmesg | tail`."


class Live(Remediation):
    """Load a module that puts a harmless function where vp_del_vqs() would call address 0."""

    name: ClassVar[str] = "live"
    options: ClassVar[tuple[str, ...]] = ("persist",)
    durable: ClassVar[bool] = True
    survives_reboot: ClassVar[bool] = False
    reach: ClassVar[Reach] = Reach(LoadModule, ReloadUnits, EnableUnits, StartUnits, AddToDkms, files=persist.FILES)

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Done where every legacy device is repaired; possible where every precaution that can be asked holds."""
        root = situation.root
        if faulty := situation.facts.live_repair.faulty_dkms:
            why = (
                f"{', '.join(faulty)}, of an earlier version, makes DKMS try each new kernel, which fails the "
                "installation of that kernel. This mends it."
            )
            return Remedy(self.name, "possible", why, (APPLY,), verified=True, cost="nothing")
        if guards.loaded(root):
            return self._planned_loaded(situation)
        if situation.kernel_status is not Status.AFFECTED:
            word = str(situation.kernel_status).replace("_", " ")
            return self.impossible(f"The running kernel was not proven to be affected (it is {word}).")
        in_the_way = guards.obstacles(situation, lasting=request.persist)
        if in_the_way:
            first, *others = in_the_way
            return self.impossible(
                _sentence(first), commands=_pastable(in_the_way), details=[_sentence(error) for error in others]
            )
        details: tuple[str, ...] = ("As root the plan also proves the layout in the kernel's memory.",)
        proven = False
        if situation.facts.superuser:
            details, proven = evidence.prove(situation).details, True
        why = (
            "A small module, built here for just this kernel, makes unplugging legacy devices safe while it runs. "
            "It works until the next boot; with --persist after each boot of this kernel."
        )
        commands = (PERSIST,) if request.persist else (APPLY,)
        return Remedy(self.name, "possible", why, commands, verified=proven, cost=COST, details=(*details, UNCOVERED))

    def _planned_loaded(self, situation: Situation) -> Remedy:
        status = situation.kernel_status
        if status is Status.MITIGATED:
            why = "The module is loaded and guards legacy devices, those too that are plugged later: read in memory."
            return Remedy(
                self.name, "done", why, (), verified=True, cost="nothing", details=(*_told(situation), UNCOVERED)
            )
        if status is Status.UNKNOWN:
            return self.impossible(
                f"The module is loaded; whether it guards every device could not be seen: {_reason(situation)}",
                commands=("sudo ejectable fix live",),
            )
        return self.impossible(
            f"The module is loaded, and does not guard every legacy device: {_reason(situation)}", commands=(UNDO,)
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Prove, build, mark, load, verify; whatever fails takes back what was done before it."""
        mended = tuple(f"Mended {path}." for path in persist.mend(situation.root, changes))
        if guards.loaded(situation.root) and not request.persist:
            why = _verify(situation)
            return Applied(self.name, mended, verified=True, why=why, undo=UNDO)
        if mended and situation.kernel_status not in (Status.AFFECTED, Status.MITIGATED):
            why = "DKMS leaves new kernels alone now. Nothing was loaded: this kernel was not proven to be affected."
            finish = "If the installation of a kernel had failed: sudo dpkg --configure -a"
            return Applied(self.name, mended, verified=True, why=why, next_steps=(finish,))
        if situation.kernel_status not in (Status.AFFECTED, Status.MITIGATED):
            raise Missing(
                f"The running kernel was not proven to be affected ({situation.kernel_status}): nothing is loaded.",
                hint=_reason(situation) or None,
            )
        in_the_way = guards.obstacles(situation, lasting=request.persist)
        if in_the_way:
            first, *others = in_the_way
            others_told = " ".join(f"Also: {_sentence(error)}" for error in others)
            raise Missing(first.message, hint=" ".join(filter(None, (first.hint, others_told))) or None)
        situation.tell("proving the layout in the kernel's memory")
        target = evidence.prove(situation).target
        headers = find_headers(situation.root, target.release, situation.facts.host.os)
        compiler = compiler_for(headers)
        watched = self._load(situation, request, changes, target, headers, compiler)
        situation.tell("looking at every device again")
        try:
            why = _verify(situation.again())
        except EjectableError:
            _withdraw(situation.root)
            raise
        after = [] if request.persist else [f"It works until the next boot. For each boot of this kernel: {PERSIST}"]
        if not watched:
            after.append(f"Nothing takes {marker.MARK} away at shutdown here: after a reboot, remove it yourself.")
        after.append(UNCOVERED)
        after.append("Upgrade the kernel when you can: `ejectable fix upgrade`.")
        done = (*mended, *changes.done)
        return Applied(self.name, done, verified=True, why=why, next_steps=tuple(after), undo=UNDO)

    def _load(  # noqa: PLR0917  (one place, called once)
        self,
        situation: Situation,
        request: Request,
        changes: Changes,
        target: Target,
        headers: Headers,
        compiler: Compiler,
    ) -> bool:
        """Put it in; whether somebody takes the mark away in good time."""
        with workspace("live") as folder:
            situation.tell("building the module")
            made = build(target, Path(folder.name), headers, compiler)
            if signing.needed(situation):
                signing.sign(made, signing.key(situation), headers)
            if request.persist:
                situation.tell("installing it with DKMS")
                persist.install_with_dkms(target, compiler, changes)
            watched = persist.watch_this_boot(situation.root, target.release, changes, lasting=request.persist)
            if not guards.loaded(situation.root):
                _insert(situation, made, target, changes)
        if watched:
            persist.start_units(changes)
        return watched

    def undo(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Take the module out and everything that was put on the disk for it; the danger is back then."""
        del request
        root = situation.root
        if guards.loaded(root):
            guards.oopsed(situation)
        said: list[str] = []
        # What could not be taken back stays on record: asking for it at once again would not end.
        while not changes.left and (more := changes.undo(self.name)):
            said += more
        if guards.loaded(root) and not changes.left:
            run_checked(["rmmod", MODULE], timeout_s=LOADING_S)
            said.append(f"Unloaded the module {MODULE}.")
        if guards.loaded(root):
            raise Missing(f"The module {MODULE} is still loaded.", hint=" ".join([*changes.left, REFUSED]))
        said += marker.clear(root)
        if not said:
            raise WrongUsage(f"There is nothing to undo: {MODULE} is not loaded, and no change of `live` is on record.")
        if changes.left:
            why = " ".join(["The module is gone, and not everything is as it was before.", *changes.left])
            return Applied(self.name, tuple(said), verified=False, why=why)
        again = situation.again()
        hit = [device.name for device in again.assessment.devices if device.unplug == "would_oops"]
        why = "The module is gone, and the danger is back" + (
            f": unplugging {', '.join(hit)} would crash." if hit else "."
        )
        return Applied(self.name, tuple(said), verified=True, why=why)


def _insert(situation: Situation, made: Path, target: Target, changes: Changes) -> None:
    """Load the module, with the mark on the disk before; what does not get in leaves no mark."""
    # Building takes its time: virtio_pci may be another one by now, or a live patch have come.
    if evidence.prove(situation.again()).target != target:
        raise Missing("The kernel has changed while the module was built.", hint="Run it again.")
    marker.set_mark(situation.root, target.release)
    try:
        with changes.step(LoadModule()):
            run_checked(["insmod", str(made)], timeout_s=LOADING_S, hint=REFUSED)
    except BaseException:
        if not guards.loaded(situation.root):
            marker.clear(situation.root)
        raise


def _withdraw(root: host.Root) -> None:
    """Unload a module that does not do what it should. What went in good order leaves no mark."""
    if not host.oopsed(root):
        run(["rmmod", MODULE], timeout_s=LOADING_S)
    if not guards.loaded(root):
        marker.clear(root)


def _verify(situation: Situation) -> str:
    """What the kernel's own memory says once the module is in; raises `Missing` where not all is well."""
    if not guards.loaded(situation.root):
        raise Missing(f"The module {MODULE} is not in the kernel.", hint=REFUSED)
    status = situation.kernel_status
    if status is Status.MITIGATED:
        return "`ejectable check` says mitigated: " + _reason(situation)
    raise Missing(f"The module is loaded, and the machine is not repaired: {_reason(situation)}", hint=REFUSED)


def _reason(situation: Situation) -> str:
    report = situation.running_kernel.report
    return " ".join(finding.reason for finding in report.findings) if report else ""


def _told(situation: Situation) -> tuple[str, ...]:
    report = situation.running_kernel.report
    findings = report.findings if report else ()
    return tuple(item.detail for finding in findings for item in finding.evidence if item.says is Status.MITIGATED)


def _sentence(error: EjectableError) -> str:
    return " ".join(filter(None, (error.message, error.hint)))


def _pastable(errors: Sequence[EjectableError]) -> tuple[str, ...]:
    """The hints that are commands."""
    return tuple(error.hint for error in errors if error.hint and error.hint.startswith("sudo "))
