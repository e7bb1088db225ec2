# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# PyTorch's build: cpu (from PyTorch's own index), cuda or default (what pip takes), or auto: without
# an NVIDIA GPU the CPU build, if the index that pip is set up with offers one.
TORCH ?= auto
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH_CPU := torch==2.14.1+cpu torchvision==0.29.1+cpu

.PHONY: demo test check lint clean

# The virtual environment, made anew when pyproject.toml changes: for the demo, and for everything.
$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@case $(TORCH) in \
	  cpu) $(PIP) --index-url https://download.pytorch.org/whl/cpu torch torchvision;; \
	  auto) command -v nvidia-smi >/dev/null || $(PIP) $(TORCH_CPU) 2>/dev/null || \
	    echo "no CPU build of PyTorch on pip's index: taking its default; TORCH=cpu uses PyTorch's index";; \
	  cuda|default) ;; \
	  *) echo "TORCH=$(TORCH) is not one of auto, cpu, cuda, default"; exit 1;; \
	esac
	$(PIP) --editable '.[cpu,train]'
	touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(PIP) --editable '.[cpu,train,dev]'
	touch $@

# Train, export, quantize and measure on the drawn sample set, in the folder demo/.
demo: $(VENV)/.demo
	mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/catdog-edge train --data sample
	cd $(DEMO) && $(BIN)/catdog-edge export --quantize
	cd $(DEMO) && $(BIN)/catdog-edge bench --seconds 20 > bench.txt
	@echo
	@tail -n 1 $(DEMO)/bench.txt
	@echo
	@echo "Look at:"
	@cd $(DEMO) && ls -t -d "$$PWD"/runs/*/ | head -n 1 | xargs -I {} find {} -name '*.png' -o -path '{}*' -name '*.html' | sort
	@echo "$(abspath $(DEMO))/bench.txt: all figures of bench"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

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
