# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened devicetrees, as a tree of nodes: Devicetree Specification v0.4, chapter 5. Numbers are big-endian."""

import struct

import msgspec

from ejectable.errors import DamagedInput

__all__ = ["MAGIC", "Node", "parse_devicetree"]

MAGIC = b"\xd0\x0d\xfe\xed"
HEADER = struct.Struct(">10I")
BEGIN, END, PROPERTY, NOP, LAST = 1, 2, 3, 4, 9
MOST_DEPTH, MOST_NODES = 16, 1 << 16


class Node(msgspec.Struct):
    """One node: its name, its properties as bytes, the nodes in it."""

    name: str
    properties: dict[str, memoryview]
    children: list["Node"]

    def child(self, name: str) -> "Node | None":
        """The node of this name in it."""
        return next((node for node in self.children if node.name == name), None)

    def text(self, name: str) -> str | None:
        """A property as a string."""
        value = self.properties.get(name)
        return None if value is None else bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")

    def number(self, name: str) -> int | None:
        """A property as a 32-bit number."""
        value = self.properties.get(name)
        return int.from_bytes(value, "big") if value is not None and len(value) == 4 else None


def parse_devicetree(data: memoryview, name: str) -> tuple[Node, int]:
    """The root node, and the offset of what follows the tree in the file; raises `DamagedInput`."""
    if len(data) < HEADER.size:
        raise DamagedInput("the header of the devicetree is cut off", path=name)
    _, total, structure, strings, *_ = HEADER.unpack_from(data)
    if total > len(data):
        raise DamagedInput(f"cut off: the devicetree has {total} bytes, the file {len(data)}", path=name)
    reader = _Reader(data[:total], structure, strings, name)
    if reader.number() != BEGIN:
        raise DamagedInput("the devicetree does not begin with a node", path=name, offset=structure)
    return reader.node(0), total


class _Reader:
    def __init__(self, data: memoryview, at: int, strings: int, name: str) -> None:
        self._data = data
        self._at = at
        self._strings = strings
        self._name = name
        self._nodes = 0

    def number(self) -> int:
        if self._at + 4 > len(self._data):
            raise DamagedInput("the devicetree is cut off", path=self._name, offset=self._at)
        self._at += 4
        return int.from_bytes(self._data[self._at - 4 : self._at], "big")

    def _text(self, at: int) -> str:
        raw = bytes(self._data[at : at + 256])
        text, end, _ = raw.partition(b"\0")
        if not end:
            raise DamagedInput("a name in the devicetree has no end", path=self._name, offset=at)
        return text.decode("utf-8", "replace")

    def node(self, depth: int) -> Node:
        """A node whose begin mark was read."""
        self._nodes += 1
        if depth > MOST_DEPTH or self._nodes > MOST_NODES:
            raise DamagedInput("a devicetree deeper or larger than any", path=self._name, offset=self._at)
        name = self._text(self._at)
        self._at += -(-(len(name.encode()) + 1) // 4) * 4
        found = Node(name, {}, [])
        while True:
            token = self.number()
            if token == BEGIN:
                found.children.append(self.node(depth + 1))
            elif token == PROPERTY:
                size, key = self.number(), self.number()
                if self._at + size > len(self._data):
                    raise DamagedInput("a property of the devicetree is cut off", path=self._name, offset=self._at)
                found.properties[self._text(self._strings + key)] = self._data[self._at : self._at + size]
                self._at += -(-size // 4) * 4
            elif token == END:
                return found
            elif token != NOP:
                raise DamagedInput("an unknown mark in the devicetree", path=self._name, offset=self._at - 4)
