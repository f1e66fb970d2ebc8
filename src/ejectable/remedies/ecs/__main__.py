# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m ejectable.remedies.ecs`: bring an instance into a state. What `fix` records to take a change back with."""

import argparse
import sys

from ejectable.errors import EjectableError, WrongUsage
from ejectable.remedies.ecs.aliyun_cli import start
from ejectable.remedies.ecs.change import change_type, ensure_running, ensure_stopped
from ejectable.remedies.ecs.instance import checked_instance, is_here
from ejectable.remedies.ecs.service import Ecs

__all__ = ["main"]

# A change may be refused for five minutes after the one before (ModifyInstanceSpec, "Description").
PATIENCE_S = 330.0
# Whoever undoes a change waits for ten minutes (changes.UNDO_TIMEOUT_S), and for two of these.
LIMIT_S = 280.0


def main(argv: list[str]) -> int:
    """Do it; 0 where the instance is as asked for, else a sentence on standard error and the code of the error."""
    parser = argparse.ArgumentParser(prog="python -m ejectable.remedies.ecs", description=__doc__)
    parser.add_argument("--region", required=True)
    parser.add_argument("--instance", required=True)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--status", choices=["Running", "Stopped"])
    wanted.add_argument("--type")
    given = parser.parse_args(argv)
    try:
        instance = checked_instance(given.instance)
        if given.status == "Stopped" and is_here(instance):
            raise WrongUsage(f"{instance} is this very machine: it will not stop itself.")
        with Ecs(given.region, patience_s=PATIENCE_S) as ecs:
            if given.type is not None:
                change_type(ecs, instance, given.type, across=True, pay=False, limit_s=LIMIT_S)
            elif given.status == "Running":
                ensure_running(ecs, instance, limit_s=LIMIT_S)
            else:
                ensure_stopped(ecs, instance, limit_s=LIMIT_S)
    except EjectableError as error:
        left = f"It may be left stopped: {start(given.region, given.instance)[0]}" if given.status == "Running" else ""
        print(" ".join(filter(None, (error.message, error.hint, left))), file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
