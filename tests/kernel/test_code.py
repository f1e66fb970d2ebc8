# SPDX-License-Identifier: GPL-2.0-or-later
"""Indirect calls are found in what compilers make, with where the pointer came from and whether it was tested."""

import re
import subprocess
from pathlib import Path

import pytest

from ejectable.kernel import Program
from ejectable.kernel.code import indirect_calls, listing
from ejectable.kernel.module import Module
from tests.kernel.compiled import COMPILERS, compiled

HEAD = "struct d { char pad[0x350]; _Bool (*ask)(struct d *, unsigned); }; void other(void);\n"
OPEN = HEAD + "int f(struct d *d, unsigned i) { other(); int r = d->ask(d, i); other(); return r; }"
GUARDED = HEAD + "int f(struct d *d, unsigned i) { other(); int r = d->ask && d->ask(d, i); other(); return r; }"
LATE = HEAD + "int f(struct d *d, unsigned i) { other(); int r = d->ask(d, i) && d->ask; other(); return r; }"
TAIL = HEAD + "_Bool f(struct d *d, unsigned i) { return d->ask(d, i); }"
RETPOLINE = {
    "x86_64-gcc": "-mindirect-branch=thunk-extern -mindirect-branch-register",
    "x86_64-clang": "-mretpoline-external-thunk",
}
SHAPES = [
    (compiler, f"{level} {extra}")
    for compiler in COMPILERS
    for level in ("-O2", "-Os")
    for extra in ("", RETPOLINE.get(compiler, "-mbranch-protection=standard"))
]
every_shape = pytest.mark.parametrize(("compiler", "options"), SHAPES)


@every_shape
def test_an_open_call_and_a_guarded_one_are_told_apart(compiler: str, options: str) -> None:
    (open_call,) = indirect_calls(compiled(OPEN, compiler, options), "f")
    assert (open_call.loaded_from, open_call.tested, open_call.tail) == (0x350, False, False)
    (guarded,) = indirect_calls(compiled(GUARDED, compiler, options), "f")
    assert (guarded.loaded_from, guarded.tested, guarded.tail) == (0x350, True, False)


@every_shape
def test_a_test_behind_the_call_is_none_in_front_of_it(compiler: str, options: str) -> None:
    (call,) = indirect_calls(compiled(LATE, compiler, options), "f")
    assert call.loaded_from == 0x350
    assert not call.tested


AWAY_FROM_ITS_TEST = """
.text
.globl f
.type f, @function
f:  movq 0x350(%rdi), %rax
    testq %rax, %rax
    jne 2f
    movq 0x2d8(%rdi), %rax
1:  jmp 3f
2:  call *%rax
3:  ret
.size f, .-f
"""


def test_a_call_that_stands_apart_is_traced_along_the_branch_that_leads_to_it(tmp_path: Path) -> None:
    """gcc -Os: what stands above the call is another path, which ends in a jump."""
    made = tmp_path / "piece.o"
    subprocess.run(["gcc", "-xassembler", "-c", "-", "-o", made], input=AWAY_FROM_ITS_TEST.encode(), check=True)
    module = Module(made.read_bytes(), name="piece.o")
    (call,) = indirect_calls(Program("piece", module.image, module.symbols, None), "f")
    assert (call.loaded_from, call.tested) == (0x350, True)


@every_shape
def test_a_tail_call_is_found(compiler: str, options: str) -> None:
    (call,) = indirect_calls(compiled(TAIL, compiler, options), "f")
    assert (call.loaded_from, call.tail, call.tested) == (0x350, True, False)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_direct_call_is_no_indirect_one_and_its_target_has_a_name(compiler: str) -> None:
    program = compiled("void other(void); int f(void) { other(); return 1; }", compiler)
    assert indirect_calls(program, "f") == []
    assert any("<other+0x0>" in instruction.text(program) for instruction in listing(program, "f"))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_listing_has_the_addresses_that_objdump_has(compiler: str, tmp_path: Path) -> None:
    program = compiled(OPEN, compiler)
    segment = next(segment for segment in program.image.segments if segment.executable)
    (tmp_path / "code").write_bytes(bytes(segment.data))
    arch = "i386:x86-64" if program.arch == "x86_64" else "aarch64"
    tool = "objdump" if program.arch == "x86_64" else "aarch64-linux-gnu-objdump"
    command = [tool, "-D", "-b", "binary", "-m", arch, f"--adjust-vma={segment.address:#x}", str(tmp_path / "code")]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    addresses = {int(found, 16) for found in re.findall(r"^\s*([0-9a-f]+):\t", dumped, re.MULTILINE)}
    mine = [instruction.address for instruction in listing(program, "f")]
    assert len(mine) > 5
    assert set(mine) <= addresses


def test_a_function_that_is_not_there_has_no_instructions() -> None:
    assert list(listing(compiled(OPEN, "x86_64-gcc"), "nothing")) == []
