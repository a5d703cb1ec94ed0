# Everything a fresh machine needs is set up by the targets themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: search test drills check format lock

search: $(READY)
	$(BIN)/python -m spine_ray.search --space ladder

# Three processes, because many tests wait for a disk or another process: a module runs in one, with its fixtures.
test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What is long by nature, all of it or one part: make drills PART=deaths. The parts are the folders of tests/drills.
PART ?=
drills: $(READY)
	$(BIN)/python -m pytest tests/drills/$(PART)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --constraint constraints.txt --python-version 3.11 \
	    --no-emit-index-url --no-annotate --no-header --upgrade -o requirements.lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@
