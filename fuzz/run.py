# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz one target with atheris: `python -m fuzz.run TARGET [libFuzzer options]`, as `make fuzz` does for each.

Inputs that break a parser are written to the current folder by libFuzzer (crash-*, timeout-*, oom-*); minimised,
they belong in fuzz/regressions/TARGET/, which the tests run through the same targets.
"""

import itertools
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent


def main() -> None:
    """Run the target named first on the command line until its time is up or it breaks."""
    target = sys.argv.pop(1)
    # Only what is imported in here is instrumented, and the seeds import what they are seeds for.
    with atheris.instrument_imports(include=["ejectable"]):
        from fuzz.seeds import seeds, write_seeds
        from fuzz.targets import run_target

        # Targets import what they use when they run: a valid input leads them through all of it.
        for seed in itertools.islice(seeds(target), 8):
            run_target(target, seed)
    regressions = HERE / "regressions" / target
    corpus = Path(".cache/fuzz") / target
    corpus.mkdir(parents=True, exist_ok=True)
    write_seeds(target, corpus)
    folders = [str(corpus), *([str(regressions)] if regressions.is_dir() else [])]
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=262144"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], *folders], lambda data: run_target(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
