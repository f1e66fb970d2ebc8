# SPDX-License-Identifier: GPL-2.0-or-later
"""A BTF type as C spells it: `bool (*)(struct virtio_device *, unsigned int)`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ejectable.kernel.types.btf import BtfTypes

__all__ = ["Spelling"]

KEYWORDS = {4: "struct ", 5: "union ", 6: "enum ", 7: "struct ", 19: "enum "}
QUALIFIERS = {9: "volatile", 10: "const", 11: "restrict"}
PTR, ARRAY, UNION_FWD, FUNC_PROTO, TYPE_TAG = 2, 3, 7, 13, 18
# Functions that take functions that take functions: enough for people, and an end to what leads in a circle.
MOST_STEPS = 128


class Spelling:
    """Spells one type, within a number of steps."""

    def __init__(self, types: "BtfTypes") -> None:
        self._types = types
        self._steps = MOST_STEPS

    def of(self, type_id: int, inner: str = "") -> str:
        """The type with `inner`, what is declared, in the place where C has it."""
        self._steps -= 1
        if self._steps < 0:
            return _join("...", inner)
        record = self._types.record(type_id)
        if record is None:
            return _join("void", inner)
        if record.kind == TYPE_TAG:
            return self.of(record.last, inner)
        if record.kind in QUALIFIERS:
            qualifier = QUALIFIERS[record.kind]
            target = self._types.record(record.last)
            if target is not None and target.kind == PTR:
                return self.of(record.last, _join(qualifier, inner))
            return f"{qualifier} {self.of(record.last, inner)}"
        if record.kind == PTR:
            target = self._types.record(record.last)
            wrapped = target is not None and target.kind in (ARRAY, FUNC_PROTO)
            return self.of(record.last, f"(*{inner})" if wrapped else f"*{inner}")
        if record.kind == ARRAY:
            element, _, count = self._types.array_of(record)
            return self.of(element, f"{inner}[{count or ''}]")
        if record.kind == FUNC_PROTO:
            return self.of(record.last, f"{inner}({self._parameters(list(self._types.parameters(record)))})")
        keyword = "union " if record.kind == UNION_FWD and record.flag else KEYWORDS.get(record.kind, "")
        name = self._types.string(record.name) or "{...}"
        return _join(keyword + name, inner)

    def _parameters(self, parameters: list[int]) -> str:
        spelled = []
        for place, parameter in enumerate(parameters[:MOST_STEPS]):
            variadic = not parameter and place and place == len(parameters) - 1
            spelled.append("..." if variadic else self.of(parameter))
        return ", ".join(spelled) or "void"


def _join(name: str, inner: str) -> str:
    return f"{name} {inner}" if inner and not inner.startswith("[") else name + inner
