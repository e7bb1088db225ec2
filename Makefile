# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(abspath $(VENV))/bin

.PHONY: demo test check lint clean

# The virtual environment, made anew when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,train,dev]'
	touch $@

# Train, export, quantize and measure on the drawn sample set, in the folder demo/.
demo: $(VENV)/.installed
	mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/catdog-edge train --data sample
	cd $(DEMO) && $(BIN)/catdog-edge export --quantize
	cd $(DEMO) && $(BIN)/catdog-edge bench --seconds 20
	@echo
	@echo "Look at:"
	@cd $(DEMO) && ls -t -d "$$PWD"/runs/*/ | head -n 1 | xargs -I {} find {} -name '*.png' -o -path '{}*' -name '*.html' | sort

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# Lint, types, layers and the tests that are not marked slow: under three minutes on two cores.
check: lint
	$(BIN)/python -m pytest -q -m 'not slow' -n 2

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
