# SPDX-License-Identifier: GPL-2.0-or-later
"""While a machine stays affected: an Oops becomes a panic and a restart, now and after a boot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import Missing, WrongUsage
from ejectable.model import Applied, Remedy
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.panic_policy import DROP_IN
from tests.host.trees import Machine, affected_module
from tests.one import the_first

pytestmark = pytest.mark.kernels
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def build(**options: object) -> Path:
        return Machine(module=affected_module(), **options).build(tmp_path / "machine")  # type: ignore[arg-type]

    return build


def situation(root: Path, *, live: bool = True) -> Situation:
    seen = host.Root(root)
    seen.live = live  # as if it were this machine
    (root / "proc/self").unlink(missing_ok=True)
    if live and (root / "proc").is_dir():
        (root / "proc/self").symlink_to(str(os.getpid()))
    return Situation(seen, the_first(), cache=False)


def planned(root: Path, *, live: bool = True) -> Remedy:
    (line,) = execute.plan(situation(root, live=live), Request(), ["panic-policy"])
    return line


def applied(root: Path, *, live: bool = True) -> Applied:
    return execute.apply(situation(root, live=live), "panic-policy", Request())


def test_it_is_planned_applied_verified_and_undone(tree: Tree) -> None:
    root = tree(panic_on_oops=0, panic=0, kdump=0)
    line = planned(root)
    assert line.state == "possible"
    assert "locks held for ever" in line.why
    assert line.commands == (
        rf"printf 'kernel.panic_on_oops = 1\nkernel.panic = 10\n' | sudo tee {DROP_IN}",
        f"sudo sysctl -p {DROP_IN}",
    )
    done = applied(root)
    assert done.verified
    assert [step.partition(" (")[0] for step in done.next_steps] == [
        "No crash kernel is loaded: with kdump a panic saves a dump first"
    ]
    settings = [line for line in (root / DROP_IN[1:]).read_text().splitlines() if not line.startswith("#")]
    assert settings == ["kernel.panic_on_oops = 1", "kernel.panic = 10"]
    assert (root / "proc/sys/kernel/panic_on_oops").read_text() == "1\n"
    assert (root / "proc/sys/kernel/panic").read_text() == "10\n"
    assert planned(root).state == "done"
    again = applied(root)
    assert (again.changes, again.verified) == ((), True), "what is done is not done again"
    execute.undo(situation(root), "panic-policy", Request())
    assert not (root / DROP_IN[1:]).exists()
    assert (root / "proc/sys/kernel/panic_on_oops").read_text() == "0\n"
    assert (root / "proc/sys/kernel/panic").read_text() == "0\n"
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(situation(root), "panic-policy", Request())


def test_a_restart_time_that_is_set_is_kept(tree: Tree) -> None:
    root = tree(panic_on_oops=0, panic=90)
    applied(root)
    assert "kernel.panic = 90\n" in (root / DROP_IN[1:]).read_text()
    assert (root / "proc/sys/kernel/panic").read_text() == "90\n"


def test_a_setting_that_comes_later_is_named_and_nothing_is_changed(tree: Tree) -> None:
    root = tree(panic_on_oops=0)
    (root / "etc/sysctl.d").mkdir()
    (root / "etc/sysctl.d/99-local.conf").write_text("kernel.panic_on_oops = 0\n")
    with pytest.raises(Missing, match=r"/etc/sysctl.d/99-local.conf sets panic_on_oops = 0") as caught:
        applied(root)
    assert "undone" in (caught.value.hint or "")
    assert not (root / DROP_IN[1:]).exists()
    assert (root / "proc/sys/kernel/panic_on_oops").read_text() == "0\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("usr/lib/sysctl.d/50-default.conf", "kernel.panic_on_oops=1\nkernel/panic = 5\n"),
        ("etc/sysctl.conf", "-kernel.panic_on_oops = 1\nkernel.panic = 5\n"),
    ],
)
def test_a_machine_that_has_it_already_is_done(tree: Tree, path: str, text: str) -> None:
    root = tree(panic_on_oops=1, panic=5)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    assert planned(root).state == "done"


def test_the_command_line_counts_and_the_settings_after_it_decide(tree: Tree) -> None:
    root = tree(panic_on_oops=1, panic=5, command_line="root=/dev/vda1 oops=panic panic=5")
    assert planned(root).state == "done"
    (root / "etc/sysctl.conf").write_text("kernel.panic_on_oops = 0\n")
    assert planned(root).state == "possible", "after a boot it would be 0"


def test_a_machine_that_would_not_crash_is_left_alone(tree: Tree) -> None:
    line = planned(tree(panic_on_oops=0, devices=()))
    # The kernel is affected, and a legacy device may be plugged in later: it is possible, but nothing is urgent.
    assert line.state == "possible"


@pytest.mark.parametrize("captured", [True, False])
def test_in_a_tree_the_file_is_written_and_nothing_below_proc(tree: Tree, captured: bool) -> None:
    root = tree(panic_on_oops=0, panic=0, kdump=0) if captured else tree(procfs=False, sysfs=False, panic_on_oops=None)
    before = {path: path.read_bytes() for path in (root / "proc").rglob("*") if path.is_file()}
    if captured:
        line = planned(root, live=False)
        command = f"sudo ejectable fix panic-policy --apply --root {root}"
        assert (line.state, line.commands) == ("possible", (command,))
    done = applied(root, live=False)
    assert done.changes == (f"Wrote {DROP_IN}.",)
    assert done.undo == f"sudo ejectable fix panic-policy --undo --root {root}"
    assert "Nothing runs in this tree" in done.why
    assert not done.next_steps
    assert {path: path.read_bytes() for path in before} == before, "what was captured is evidence"
    assert planned(root, live=False).state == "done"
    assert execute.undo(situation(root, live=False), "panic-policy", Request()).verified
    assert {path: path.read_bytes() for path in before} == before


def test_values_are_set_in_a_procfs_only(tree: Tree) -> None:
    root = tree(panic_on_oops=0, panic=0)
    machine = situation(root)
    (root / "proc/self").unlink()
    with pytest.raises(Missing, match="no value of the running kernel"):
        execute.apply(machine, "panic-policy", Request())
    assert (root / "proc/sys/kernel/panic_on_oops").read_text() == "0\n"
    assert not (root / DROP_IN[1:]).exists()
