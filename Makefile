# `make demo` runs the whole path on real input; `make test` passes the tests. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4
EXTRAS ?= cpu,rocksdb,registry,otel,train,parquet,movielens,demo,docs,examples,dev
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test docs lint format clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Slipstream needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# Options go in ARGS: make demo ARGS=--json
demo: setup
	@$(BIN)/slipstream demo $(ARGS)

# Kafka's jars (or images) come before the tests, so that no test waits for a download. Tests mostly wait, for timeouts and for
# servers: several run at once, each on a Kafka and Redis of its own. With ARGS (a file, --pdb) or given addresses: one by one.
ONE_BY_ONE = $(ARGS)$(SLIPSTREAM_KAFKA_BOOTSTRAP)$(SLIPSTREAM_REDIS_URL)
test: setup
	@$(BIN)/python -m slipstream.stack fetch
	@$(BIN)/python -m pytest $(if $(ONE_BY_ONE),$(ARGS),--numprocesses $(WORKERS) --dist worksteal)

# The pages and pictures that are made by commands, then the site: build/site/index.html.
docs: setup
	@$(BIN)/slipstream config reference > docs/settings.md
	@$(BIN)/python -m slipstream.cli.reference > docs/command-line.md
	@$(BIN)/python -m slipstream.metrics_reference > docs/metrics.md
	@$(BIN)/python -m docs.pictures.draw
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@$(BIN)/python -m tools.audit '$(EXTRAS)'

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
