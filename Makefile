# Each target installs what it needs into .venv first; only Python (3.11 or newer) has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.installed-runtime
DEVELOPMENT := $(VENV)/.installed-development
DOCUMENTATION := $(VENV)/.installed-documentation

# Two test processes, and a file's tests in one of them, which compiles their programs once.
PYTEST_FLAGS ?= -n 2 --dist loadfile
DEMO_GAME := sis --num-agents 1000 --horizon 20 --heterogeneity 0.1 --num-epochs 300 \
	--temperature 0.01 --evaluate-every 20 --seed 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all check format bench package docs clean distclean

help:
	@echo "make demo      solve A-SIS for 1000 agents, with one policy for all and for each, and report"
	@echo "make test      lint, types, and the tests without the slow ones"
	@echo "make test-all  lint, types, and all tests"
	@echo "make check     lint, format and types"
	@echo "make format    let ruff mend lint and format"
	@echo "make bench     measure anew what the documentation quotes, into benchmarks/results: hours"
	@echo "make package   wheel and source distribution, tried in a clean environment"
	@echo "make docs      build the documentation into site"
	@echo "make clean     remove caches, build outputs and the demo's runs (distclean: .venv too)"

$(RUNTIME): requirements.txt pyproject.toml
	@echo "Installing the pinned packages into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --requirement requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@echo "Installing the pinned development packages into $(VENV)"
	@$(PIP) install --requirement requirements-dev.txt
	@touch $@

$(DOCUMENTATION): requirements-docs.txt $(RUNTIME)
	@echo "Installing the pinned documentation packages into $(VENV)"
	@$(PIP) install --requirement requirements-docs.txt
	@touch $@

install: $(DEVELOPMENT)

demo: $(RUNTIME)
	rm -rf runs/demo-symm-pmd runs/demo
	$(BIN)/crowdnash solve $(DEMO_GAME) --evaluation td --out runs/demo-symm-pmd
	$(BIN)/crowdnash solve $(DEMO_GAME) --out runs/demo
	$(BIN)/crowdnash report runs/demo-symm-pmd
	$(BIN)/crowdnash report runs/demo

# Quick compilation, slower programs: most of the tests' time is XLA's. Large programs are kept for
# the next run, until `make clean`. `test-all` compiles as users do.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS := 1
test: export XLA_FLAGS := --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1
test: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.pytest_cache/compiled
test: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.2
test: check
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-all: check
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m ""

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: $(DEVELOPMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every table that the documentation quotes. What compares with another library leaves it out unless
# its interpreter is named (see the scripts); equilibrium and sis_table go on where they stopped.
# `theory.md` and `taxi.md` are tables of `reproduce`, whose results.md have them, with remarks.
bench: $(DEVELOPMENT)
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/weak_scaling.py
	$(if $(OLD),$(BIN)/python benchmarks/one_device.py --old $(OLD),@echo "one_device.py: for its rows, make bench OLD=<the source folder of version 0.1.0>")
	$(BIN)/python benchmarks/ppo_speed.py
	$(BIN)/python benchmarks/mean_field_speed.py
	$(BIN)/python benchmarks/simulator_speed.py
	$(BIN)/python benchmarks/comparison.py
	$(BIN)/python benchmarks/time_to_quality.py
	$(BIN)/python benchmarks/equilibrium.py
	$(BIN)/python benchmarks/sis_table.py
	$(BIN)/python benchmarks/sis_table.py --summarise
	$(BIN)/crowdnash reproduce all --scale small --out runs/reproduction

# The wheel and the source distribution, in an environment that has nothing else.
package: $(DEVELOPMENT)
	rm -rf build dist
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')"
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist dist/crowdnash-*.tar.gz
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip --quiet install dist/crowdnash-*.whl
	cd build && clean/bin/crowdnash solve sis --num-agents 20 --num-epochs 5 --out sis
	cd build && clean/bin/crowdnash verify sis/certificate-last.json
	cd build && clean/bin/crowdnash case sioux-falls --scale small --out sioux-falls

docs: $(DOCUMENTATION)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis runs/demo-symm-pmd runs/demo
	rm -rf src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
