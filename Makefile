# make sweep     install what is pinned and run the main job on the built-in data
# make test      install the test tools as well; lint, types, layers and tests
# make thorough  the tests that take long
# make test-gpu  what only one or two GPUs can show; minutes
# make lock      renew requirements.lock from pyproject.toml
# make audit     known weaknesses of what is pinned, for the weekly check; needs a network
# make bench     benchmarks, side by side with peers, as one table (15 minutes; no tests)

NAME  ?= ablation_text_depth
ARGS  ?=
PYTHON ?= python3
VENV  := .venv
BIN   := $(VENV)/bin

.PHONY: sweep test test-gpu thorough lock audit bench
.DELETE_ON_ERROR:

sweep: $(VENV)/.ready
	$(BIN)/python -m harness.sweep $(NAME) $(ARGS)

test: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slurm and not thorough"
	$(BIN)/python -m pytest -m "slurm and not thorough"

thorough: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "thorough and not slurm"
	$(BIN)/python -m pytest -m "slurm and thorough"

test-gpu: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 0 -m gpu tests/gpu

bench: $(VENV)/.ready-test
	$(BIN)/python tests/benchmarks/everything.py --out reports/benchmarks.md --json reports/benchmarks.json

# uv installs the pinned set in half a minute and reads UV_INDEX_URL; where only pip's own
# configuration knows the package index, pip installs the same set in two or three minutes.
# Whatever is installed has one of the SHA-256 in the file.
INSTALL = $(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes -r $(1) \
	|| $(BIN)/pip install --no-deps --require-hashes -r $(1)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9

$(VENV)/.ready: $(BIN)/python requirements.lock pyproject.toml
	$(call INSTALL,requirements.lock)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready requirements-test.lock
	$(call INSTALL,requirements-test.lock)
	touch $@

audit: $(BIN)/python
	$(BIN)/uv tool run pip-audit --require-hashes --disable-pip -r requirements-test.lock

lock: $(BIN)/python
	$(BIN)/uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11 \
		pyproject.toml --group build -o requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11 \
		pyproject.toml --extra test -c requirements.lock -o requirements-test.lock
