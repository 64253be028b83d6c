# Everything runs from .venv, made from the lock file; uv comes into the venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

WORKERS ?= 2
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test test-slow lint types docs check lists plans bench lock clean

setup: $(STAMP)

# link-mode: uv's cache and the venv may be on different disks
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@UV="$$(command -v uv || echo $(BIN)/uv)"; \
	UV_LINK_MODE=copy "$$UV" pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock && \
	"$$UV" pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/vpo train --method online --reward vqa --output runs/demo --overwrite

# one worker a core, each with one thread: threads that wait for each other cost more than they bring here
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# what is too long for each change: kills of whole commands, every cut of the power, every quickstart
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# a link, an anchor or a page that is missing from the menu is an error
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: lint types docs test

# what is generated from the parts themselves: vpo_kit/catalogue.json and docs/recipe.md
lists: $(STAMP)
	$(BIN)/python -m vpo_kit.library.lists

# what is planned without weights; what is in the result files already is kept
plans: $(STAMP)
	$(BIN)/python -m benchmarks.plans
	$(BIN)/python -m benchmarks.recipes
	$(BIN)/python -m benchmarks.families

bench: $(STAMP)
	$(BIN)/python -m benchmarks.speed

# pins and hashes only: no index address may get into the file
lock:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@UV="$$(command -v uv || echo $(BIN)/uv)"; \
	"$$UV" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist
