# SPDX-License-Identifier: GPL-2.0-or-later
"""What people do to logs (`tests.attack.logs`), as transformations of a file."""

import random
from pathlib import Path

from tests.attack.files import rewritten
from tests.attack.harness import Context, Transformation
from tests.attack.logs import DAMAGES, DRESSES, text_of
from tests.attack.logs import Transformation as OfText

__all__ = ["LOGS"]


def _step(name: str, change: OfText) -> Transformation:
    def apply(path: Path, context: Context) -> Path | None:
        text = text_of(path.read_bytes()) if path.is_file() else None
        if not text:
            return None
        return rewritten(path, change(text, random.Random(context.chance.random())))

    return Transformation(f"log {name}", ("log",), apply)


LOGS = tuple(_step(name, change) for name, change in {**DRESSES, **DAMAGES}.items() if name != "as it is")
