# SPDX-License-Identifier: GPL-2.0-or-later
"""Turn the words of a command line into values without pydantic, whose import alone costs a tenth of a second.

Typer (0.26 and later) builds a pydantic adapter for each parameter when its value is needed. The few plain types that
our commands use are converted here; whatever is not plain is left to Typer, and so is everything if Typer changes.
"""

from typing import Any

import typer

__all__ = ["use_plain_types"]


class _Plain:
    """Stands in for Typer's RuntimeParam: `coerce` gives the value, or raises `BadParameter`."""

    def __init__(self, kind: Any, choices: tuple[Any, ...]) -> None:
        self._kind = kind
        self._choices = choices

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of one parameter; a repeatable one has a sequence."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        return [self._one(item, param, ctx) for item in value] if many else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        if self._choices and value not in self._choices:
            offered = ", ".join(repr(choice) for choice in self._choices)
            raise typer.BadParameter(f"{value!r} is not one of {offered}.", ctx=ctx, param=param)
        if self._kind is not int:
            return value
        try:
            number = int(value)
        except ValueError as error:
            raise typer.BadParameter(f"{value!r} is not a whole number.", ctx=ctx, param=param) from error
        low, high = param.min, param.max
        if (low is not None and number < low) or (high is not None and number > high):
            raise typer.BadParameter(f"{number} is not in the range {low} to {high}.", ctx=ctx, param=param)
        return number


def use_plain_types(command: Any) -> None:
    """Give the parameters of plain types (str, int, flags, a choice of strings, lists of str) our own conversion."""
    # --help is made when it is first asked for, and kept.
    help_option = command.get_help_option(typer.Context(command, **command.context_settings))
    for param in [*command.params, *([help_option] if help_option else [])]:
        if param.param_type_name == "argument":
            param.display_type_rich = _nothing  # its metavar says what it is; `<list[str]>` tells a user nothing
        about = getattr(param, "type_descriptor", None)
        if about is None or not hasattr(param, "_runtime_param") or getattr(about, "is_file", True):
            continue
        choices = tuple(about.choices or ()) if about.is_choice else ()
        plain = about.annotation in (str, int, bool, list[str]) and not about.is_path
        if plain or (choices and not about.is_list and all(type(choice) is str for choice in choices)):
            param._runtime_param = _Plain(about.annotation, choices)  # noqa: SLF001  (Typer offers no other place)


def _nothing(**_: Any) -> str:
    return ""
