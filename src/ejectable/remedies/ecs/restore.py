# SPDX-License-Identifier: GPL-2.0-or-later
"""Bringing an instance back into a state, to undo a change: with the patience of one who must not give up half-way."""

from ejectable.errors import WrongUsage
from ejectable.remedies.ecs.change import change_type, ensure_running, ensure_stopped
from ejectable.remedies.ecs.instance import checked_instance, is_here
from ejectable.remedies.ecs.service import Ecs

__all__ = ["running", "stopped", "typed"]

# A change may be refused for five minutes after the one before (ModifyInstanceSpec, "Description").
PATIENCE_S = 330.0
LIMIT_S = 280.0


def running(region: str, instance: str) -> None:
    """Start the instance, where it does not run. Raises `Missing` or `WrongUsage`."""
    with Ecs(region, patience_s=PATIENCE_S) as ecs:
        ensure_running(ecs, checked_instance(instance), limit_s=LIMIT_S)


def stopped(region: str, instance: str) -> None:
    """Stop the instance, where it is not. Raises `WrongUsage` for the machine that we run on, or `Missing`."""
    if is_here(checked_instance(instance)):
        raise WrongUsage(f"{instance} is this very machine: it will not stop itself.")
    with Ecs(region, patience_s=PATIENCE_S) as ecs:
        ensure_stopped(ecs, instance, limit_s=LIMIT_S)


def typed(region: str, instance: str, name: str) -> None:
    """Give the stopped instance this type; raises `WrongUsage` for a subscription, whose change is an order."""
    with Ecs(region, patience_s=PATIENCE_S) as ecs:
        change_type(ecs, checked_instance(instance), name, across=True, pay=False, limit_s=LIMIT_S)
