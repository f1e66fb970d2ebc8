# SPDX-License-Identifier: GPL-2.0-or-later
# `make help` lists the targets. Everything is set up on first use, in .venv, from a locked list with hashes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test lint lock corpus bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

.venv/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml scripts/setup
	@scripts/setup run
	@touch $@

.venv/dev.stamp: requirements/dev.txt requirements/build.txt requirements/debian.txt pyproject.toml scripts/setup
	@scripts/setup dev
	@touch $@ .venv/run.stamp

run: .venv/run.stamp ## set up, then run `ejectable check` on this machine (ARGS="..." adds options)
	@$(BIN)/ejectable check $(ARGS)

lint: .venv/dev.stamp ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint, then all tests, in parallel
	$(BIN)/pytest -n auto $(ARGS)

corpus: .venv/dev.stamp ## download, build and judge some hundred kernels (ARGS=--write renews docs/corpus.md)
	@scripts/setup corpus
	$(BIN)/python -m corpus.judge $(ARGS)

bench: .venv/dev.stamp ## measure whole processes against their limits (ARGS="kernel -n 9")
	$(BIN)/python bench/run.py $(ARGS)

lock: .venv/dev.stamp ## renew the locked lists of dependencies
	scripts/lock

FUZZ_TARGETS := decompression streams archive kernel_file module config btf dwarf kallsyms source crash json_console \
    record verdict qmp guest
FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: .venv/dev.stamp ## fuzz each parser with atheris, FUZZ_SECONDS=60 each (FUZZ_TARGETS="btf crash" picks)
	@.venv/bin/pip install --quiet --no-build-isolation --require-hashes -r requirements/fuzz.txt
	@set -e; for target in $(FUZZ_TARGETS); do echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	    $(BIN)/python -m fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 -verbosity=0; done

.PHONY: attack attack-root
attack: .venv/dev.stamp ## everything that people do to files, alone and in pairs: is what is affected ever called safe? (ARGS="--pairs 500")
	$(BIN)/python -m tests.attack.run $(ARGS)

attack-root: .venv/dev.stamp ## hostile trees, every command, as root and as nobody: what is written, started, shown? (ARGS="--trees 20")
	$(BIN)/python -m tests.attack.root $(ARGS)

.PHONY: crash-numbers demo lab-matrix lab-verdicts lab-false-alarms lkdtm lab-soak
demo: .venv/dev.stamp ## the whole story with real parts: one kernel lives, the same with the defect dies
	@$(BIN)/python -m corpus.demo

lab-matrix: .venv/dev.stamp ## try every combination in the lab, write docs/lab-matrix.md (an hour and a half; ARGS="--limit 100": the next hundred)
	$(BIN)/python -m corpus.lab_matrix $(ARGS)

lab-verdicts: .venv/dev.stamp ## a score of kernels: is what their code says what happens? writes docs/lab-verdicts.md
	$(BIN)/python -m corpus.lab_verdicts $(ARGS)

lkdtm: .venv/dev.stamp ## the kernel's own crash tests in guests, read by `crash`; writes docs/lkdtm.md
	$(BIN)/python -m corpus.lkdtm $(ARGS)

crash-numbers: .venv/dev.stamp ## what the fixtures say of `crash`: dresses, confidence, blame; writes docs/crash-numbers.md
	$(BIN)/python -m corpus.crash_numbers --write

lab-false-alarms: .venv/dev.stamp ## stock kernels, unplugged over and over: does the lab ever cry wolf? writes docs/lab-false-alarms.md
	$(BIN)/python -m corpus.lab_false_alarms $(ARGS)

lab-soak: .venv/dev.stamp ## the lab a hundred times in a row, and a hundred cycles in a run: no leak, no flake
	$(BIN)/python -m corpus.lab_soak $(ARGS)

.PHONY: man dist audit
dist: .venv/dev.stamp .venv/dist.stamp ## build the wheel, the source archive and the bill of materials (CycloneDX) into dist/
	$(BIN)/python -m hatchling build -t wheel -t sdist -d dist
	.venv/dist/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --mc-type application \
	    --output-reproducible --of JSON -o dist/ejectable.cdx.json

audit: .venv/dist.stamp ## ask PyPI for known vulnerabilities of every locked package (needs the network)
	@set -e; for list in run dev build fuzz dist; do echo "requirements/$$list.txt"; \
	    .venv/dist/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r requirements/$$list.txt; done

# The tools of `dist` and `audit` need other versions of some packages than we do: an environment of their own.
.venv/dist.stamp: .venv/run.stamp requirements/dist.txt
	@$(BIN)/python -m venv --without-pip .venv/dist
	@$(BIN)/pip --python .venv/dist/bin/python install --quiet --only-binary :all: --require-hashes -r requirements/dist.txt
	@touch $@

man: .venv/run.stamp ## write docs/ejectable.1 anew, from the commands' own help
	$(BIN)/python scripts/man

.PHONY: remedies-table
remedies-table: .venv/dev.stamp ## each remedy on each kind of host: plan, apply, verify, undo; writes docs/remedies-table.md
	$(BIN)/python -m corpus.remedies_table $(ARGS)

.PHONY: live-proof live-whole live-dkms
live-proof: .venv/dev.stamp ## the module of `fix live` in guests, writes docs/live-proof.md (ARGS=--quick: a selection)
	$(BIN)/python -m corpus.live_proof $(ARGS)

live-dkms: .venv/dev.stamp ## kernels come and go beside the module of `fix live --persist`, on Debian 11 to 13; writes docs/live-dkms.md
	$(BIN)/python -m corpus.live_dkms $(ARGS)

live-whole: .venv/dev.stamp ## `fix live` from end to end in a guest with a real user space; needs root and debootstrap
	$(BIN)/python -m corpus.live_whole
	$(BIN)/python -m corpus.live_proof --table
