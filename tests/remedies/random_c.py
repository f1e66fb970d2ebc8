# SPDX-License-Identifier: GPL-2.0-or-later
"""Random C: a vp_del_vqs() that calls the member somewhere behind some conditions, and a compiler to run it with.

What the source reader says of such a function, and what the repair makes of it, is compared with what the compiled
function does for every input.
"""

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CALL", "behaviour", "function"]

CALL = "vp_dev->is_avq(vdev, vq->index)"
POINTERS = ("vp_dev->is_avq", "vp_dev->is_avq != NULL", "NULL != vp_dev->is_avq", "!!vp_dev->is_avq")
INPUTS = 16  # the pointer, two unknowns, and what the call answers: a bit each

DRIVER = r"""
#include <stdio.h>
#include <stdbool.h>
#include <stddef.h>
struct vq { int index; };
struct dev { bool (*is_avq)(void *vdev, int index); };
static char trace[4096]; static int used, bad, answer, a, b, rounds;
static void put(char c) { if (used < 4000) trace[used++] = c; }
static bool real(void *vdev, int index) { (void)vdev; (void)index; return answer; }
static bool called(struct dev *d) { if (!d->is_avq) { bad = 1; return answer; } put('C'); return answer; }
static int once(int x) { return x && rounds++ < 2; }
"""
MAIN = r"""
int main(void)
{
	for (unsigned f = 0; f < sizeof(all) / sizeof(*all); f++)
		for (int input = 0; input < 16; input++) {
			struct dev dev = { input & 1 ? real : NULL }; struct vq vq = { 1 };
			a = !!(input & 2); b = !!(input & 4); answer = !!(input & 8); used = bad = rounds = 0;
			all[f](&dev, &vq, NULL);
			trace[used] = 0;
			printf("%u %d %d %s.\n", f, input, bad, trace);
		}
}
"""


def function(seed: int, *, tests: bool) -> str:
    """The text of a function with one call in it; `tests` lets conditions ask for the pointer, too."""
    return _Writer(random.Random(seed), tests=tests).function()


def behaviour(functions: Sequence[str], folder: Path) -> list[list[tuple[bool, str]]]:
    """For each function and each input: whether it called a null pointer, and what it did."""
    parts = [DRIVER]
    for number, text in enumerate(functions):
        head = f"static void f{number}(struct dev *vp_dev, struct vq *vq, void *vdev)"
        parts.append(text.replace("void vp_del_vqs(void)", head).replace(CALL, "called(vp_dev)"))
    names = ", ".join(f"f{number}" for number in range(len(functions)))
    parts += [f"static void (*all[])(struct dev *, struct vq *, void *) = {{ {names} }};", MAIN]
    (folder / "all.c").write_text("\n".join(parts))
    subprocess.run(["gcc", "-w", "-O0", "-o", folder / "all", folder / "all.c"], check=True)
    lines = subprocess.run([folder / "all"], check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    rows = [line.split(" ", 3) for line in lines]
    return [[(row[2] == "1", row[3]) for row in rows[start : start + INPUTS]] for start in range(0, len(rows), INPUTS)]


class _Writer:
    def __init__(self, dice: random.Random, *, tests: bool) -> None:
        self.dice = dice
        self.tests = tests
        self.marks = 0

    def function(self) -> str:
        body = self.block(3, call=True)
        return f"void vp_del_vqs(void)\n{{\n\tfor (int i = 0; i < 1; i++) {body}\n\tput('.');\n}}\n"

    def block(self, depth: int, *, call: bool) -> str:
        count = self.dice.randint(1, 3)
        chosen = self.dice.randrange(count) if call else -1
        return "{ " + " ".join(self.statement(depth, call=at == chosen) for at in range(count)) + " }"

    def statement(self, depth: int, *, call: bool) -> str:
        kind = self.dice.choice(
            ["if", "if", "if-else", "while", "leave", "value", "switch"] if depth else ["value", "leave"]
        )
        if kind == "value":
            self.marks += 1
            mark = f"put({chr(97 + self.marks % 26)!r});"
            if not call:
                return mark
            condition = self.condition(call=True)
            return self.dice.choice([f"if ({condition}) {mark}", f"bool kept = {condition}; answer ^= kept;"])
        if kind == "leave":
            word = self.dice.choice(["continue;", "return;", "{ put('x'); continue; }"])
            return f"if ({self.condition(call=call)}) {word}"
        if kind == "switch":
            cases = self.statement(depth - 1, call=call), self.statement(depth - 1, call=False)
            return f"switch (a) {{ case 0: {{ {cases[0]} }} case 1: {cases[1]} }}"
        inside = self.dice.randrange(3) if call else -1
        head = self.condition(call=inside == 0)
        if kind == "while":
            return f"while (once({head})) {self.block(depth - 1, call=inside > 0)}"
        first = (
            self.block(depth - 1, call=inside == 1)
            if inside == 1 or kind == "if"
            else self.statement(depth - 1, call=False)
        )
        if kind == "if" and inside != 2:
            return f"if ({head}) {first}"
        return f"if ({head}) {{ {first} }} else {self.block(depth - 1, call=inside == 2)}"

    def condition(self, *, call: bool) -> str:
        count = self.dice.randint(1, 3)
        chosen = self.dice.randrange(count) if call else -1
        parts = [self.operand(call=at == chosen) for at in range(count)]
        operator = self.dice.choice([" && ", " || "])
        if count == 3 and self.dice.random() < 0.3:
            return f"{parts[0]} ? {parts[1]} : {parts[2]}"
        return operator.join(parts)

    def operand(self, *, call: bool) -> str:
        if call:
            return self.dice.choice([CALL, CALL, f"!{CALL}", f"({CALL})", f"({CALL} && a)", f"!(b || {CALL})"])
        words = ["a", "b", "!a", "(a || b)", "!(a && b)", "a == 0"]
        if self.tests:
            words += [*POINTERS, *POINTERS, "!vp_dev->is_avq", "vp_dev->is_avq == NULL", "!(vp_dev->is_avq && a)"]
        return self.dice.choice(words)
