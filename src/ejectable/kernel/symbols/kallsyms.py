# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbols of a stripped kernel, from the tables it carries to print its own stack traces.

A distribution kernel has some 150,000 of them, and a verdict asks for a dozen: names are expanded one at a time.
"""

import bisect
from collections.abc import Callable, Iterator
from functools import cached_property

from ejectable.errors import BadInput
from ejectable.kernel.program import Image, Symbol, SymbolTable
from ejectable.kernel.symbols.tables import Tables, name_at, tables_around
from ejectable.kernel.symbols.tokens import find_tokens

__all__ = ["KallsymsTable", "read_kallsyms"]

# At most so many symbols share one address, or one name; a hostile table may say otherwise.
MOST_ALIASES = 4096
DOT = ord(".")


def read_kallsyms(image: Image) -> "KallsymsTable":
    """The symbols of an image, with absolute link-time addresses; raises `BadInput` if it has no kallsyms.

    In a flat image whose base is not known the symbol `_text` tells it, except since v7.0, where all addresses are
    relative to the image's own: then they are as `image` says.
    """
    broken = False
    for tokens in find_tokens(image):
        tables = tables_around(image, tokens)
        if tables is not None:
            return KallsymsTable(tables)
        broken = True
    if broken:
        raise BadInput("its kallsyms are in no order that is known: a token table without names or addresses")
    raise BadInput("it has no kallsyms", hint="Was it built without CONFIG_KALLSYMS? Then give the unstripped vmlinux.")


class KallsymsTable(SymbolTable):
    """Symbols of a kernel, expanded on demand; its methods may raise `DamagedInput`."""

    def __init__(self, tables: Tables) -> None:  # the tables take the place of what the base class keeps
        self.tables = tables
        self._known: dict[int, bytes] = {}
        # The same few names are asked for by each run and by each reader of the code.
        self._families: dict[str, tuple[Symbol, ...]] = {}

    def __len__(self) -> int:
        return self.tables.count

    def __iter__(self) -> Iterator[Symbol]:
        names = self._all_names
        addresses = self.tables.addresses
        following = 0
        sizes = [0] * len(names)
        for index in range(len(names) - 1, -1, -1):
            address = addresses[index]
            if index + 1 < len(names) and addresses[index + 1] != address:
                following = addresses[index + 1]
            sizes[index] = max(0, following - address) if following else 0
        for index, name in enumerate(names):
            yield Symbol(name[1:], addresses[index], sizes[index], name[:1])

    def get(self, name: str) -> Symbol | None:
        """The symbol of exactly this name; the first by address where several share it."""
        return next((symbol for symbol in self._family(name) if symbol.name == name), None)

    def variants(self, name: str) -> tuple[Symbol, ...]:
        """Every symbol whose source name is `name`: itself and its compiler-made variants, by address."""
        found = [symbol for symbol in self._family(name) if name in (symbol.name, self.source_name(symbol.name))]
        return tuple(sorted(found, key=lambda symbol: symbol.address))

    def at(self, address: int) -> tuple[Symbol, int] | None:
        """The symbol that holds `address` and the offset into it, in bytes."""
        addresses = self.tables.addresses
        after = bisect.bisect_right(addresses, address)
        if not after:
            return None
        # The first of several at one address, as the kernel itself prints it (kernel/kallsyms.c, get_symbol_pos).
        start = addresses[after - 1]
        index = max(bisect.bisect_left(addresses, start), after - MOST_ALIASES)
        symbol = self._symbol(index)
        offset = address - start
        return (symbol, offset) if offset < symbol.size or not symbol.size else None

    def _symbol(self, index: int) -> Symbol:
        addresses = self.tables.addresses
        address = addresses[index]
        following = bisect.bisect_right(addresses, address)
        size = addresses[following] - address if following < len(addresses) else 0
        name = self._name(index).decode("utf-8", "replace")
        return Symbol(name[1:], address, size, name[:1])

    def _name(self, index: int) -> bytes:
        name = self._known.get(index)
        if name is None:
            name = self._known[index] = name_at(self.tables, index)
        return name

    def _family(self, name: str) -> tuple[Symbol, ...]:
        """Symbols whose name is `name` up to its first dot, with anything behind a dot, by name and address."""
        stem = name.partition(".")[0] if not name.startswith(".") else name
        if stem not in self._families:
            search = self._family_by_order if self.tables.sequence is not None else self._family_by_text
            self._families[stem] = tuple(search(stem.encode()))
        return self._families[stem]

    def _family_by_order(self, stem: bytes) -> Iterator[Symbol]:
        """By bisection of the order of names.

        That order was the order of the names without .llvm.NNN for some time (since v6.2, where a kernel was
        built with clang's LTO), but a stem has no suffix, and is before all its
        own family either way.
        """
        count = self.tables.count
        start = bisect.bisect_left(range(count), stem, key=lambda place: self._name(self._place(place))[1:])
        for place in range(start, min(count, start + MOST_ALIASES)):
            index = self._place(place)
            name = self._name(index)[1:]
            if not name.startswith(stem) or name[len(stem) : len(stem) + 1] > b".":
                return
            if name == stem or name[len(stem)] == DOT:
                yield self._symbol(index)

    def _place(self, place: int) -> int:
        order = self.tables.sequence
        assert order is not None
        index = int.from_bytes(order[3 * place : 3 * place + 3], "big")
        return min(index, self.tables.count - 1)

    def _family_by_text(self, stem: bytes) -> Iterator[Symbol]:
        """By a search in the text of all names, in tables without an order (until v6.1)."""
        text = self._text
        name = stem.decode("utf-8", "replace")
        for ending in ("\0", "."):
            position = text.find(name + ending)
            while position >= 0:
                # Before the name stands its kind, and before that the end of the name before.
                if position > 1 and text[position - 2] == "\0":
                    yield self._symbol(text.count("\0", 0, position) - 1)
                position = text.find(name + ending, position + 1)

    @cached_property
    def _text(self) -> str:
        """Kinds and names of all symbols, in order, each between NULs."""
        names, wide = self.tables.names, self.tables.wide
        tokens = [token.decode("utf-8", "surrogateescape").replace("\0", "") for token in self.tables.tokens]
        expand: Callable[[int], str] = tokens.__getitem__
        pieces = [""]
        position = 0
        end = len(names)
        for _ in range(self.tables.count):
            if position >= end:
                break
            length = names[position]
            position += 1
            if length & 0x80 and wide:
                length = length & 0x7F | (names[position] if position < end else 0) << 7
                position += 1
            pieces.append("".join(map(expand, names[position : position + length])))
            position += length
        pieces.append("")
        return "\0".join(pieces)

    @cached_property
    def _all_names(self) -> list[str]:
        return self._text[1:-1].split("\0")
