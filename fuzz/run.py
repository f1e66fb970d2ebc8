# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz one target with atheris: `python -m fuzz.run TARGET [libFuzzer options]`, as `make fuzz` does for each.

Inputs that break a parser are written to the current folder by libFuzzer (crash-*, timeout-*, oom-*); minimised,
they belong in fuzz/regressions/TARGET/, which the tests run through the same targets.
"""

import sys
from pathlib import Path

import atheris

from fuzz.seeds import write_seeds

HERE = Path(__file__).parent


def main() -> None:
    """Run the target named first on the command line until its time is up or it breaks."""
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["ejectable"]):
        from fuzz.targets import run_target

        # Targets import what they use when they run; once here, so that it is instrumented.
        run_target(target, b"")
    regressions = HERE / "regressions" / target
    corpus = Path(".cache/fuzz") / target
    corpus.mkdir(parents=True, exist_ok=True)
    write_seeds(target, corpus)
    folders = [str(corpus), *([str(regressions)] if regressions.is_dir() else [])]
    limits = ["-timeout=30", "-rss_limit_mb=1024", "-max_len=262144"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], *folders], lambda data: run_target(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
