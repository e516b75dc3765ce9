# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 200
KEEP ?=
export XDG_CACHE_HOME ?= $(HOME)/.cache

.PHONY: systemd-test demo policy minilm test check format sim accept faults bench bench-quick gpu-check conformance engines engines-llamacpp model lock clean

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "orchctl needs Python 3.11 or newer; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: requirements.lock pyproject.toml | $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.demo

model: | $(VENV)/.made
	$(BIN)/python -m tools.fetch_demo

# A small real embedding model for examples/embedding.yaml and its tests (84 MB to download, once).
minilm: | $(VENV)/.made
	$(BIN)/python -m tools.fetch_minilm

# A daemon with a real engine and a real model: Ready, one answer, status. KEEP=1 leaves it running.
demo: $(VENV)/.demo model
	$(BIN)/python -m tools.demo $(if $(KEEP),--keep)

# tests/faults has a target of its own: `make faults`.
test: $(VENV)/.dev model
	$(BIN)/pytest -n 2 --dist worksteal --ignore tests/faults

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_tidy.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# N seeds of the simulated world; a failing seed is printed and kept.
sim: $(VENV)/.dev
	$(BIN)/python -m tests.sim --seeds $(N) --jobs 2

# The long runs: N cycles of kill -9 under load and the like.
accept: $(VENV)/.dev
	ACCEPT_CYCLES=$(N) $(BIN)/pytest -m accept --timeout 3600 tests/acceptance

# Every fault of the catalogue, injected for real, 5 times each (N=20: 20 times); writes docs/faults.md.
faults: $(VENV)/.dev model
	FAULT_FROZEN_S=30 $(BIN)/pytest -n 2 --dist worksteal -m fault --timeout 900 --fault-table docs/faults.md \
		--fault-rounds $(if $(filter file,$(origin N)),5,$(N)) tests

# The tests of the real engines alone.
engines: $(VENV)/.dev model
	$(BIN)/pytest -m "engines or fidelity" tests/engines

# The true llama-server binary, built once (10 to 30 minutes on 2 cores), cached, and its own tests.
engines-llamacpp: $(VENV)/.dev
	$(BIN)/python -m tools.build_llama_server
	$(BIN)/pytest -m fidelity tests/engines

bench: $(VENV)/.dev
	$(BIN)/python -m bench.run

bench-quick: $(VENV)/.dev
	$(BIN)/python -m bench.run --quick

# The service under a real systemd: a small Debian, booted in a folder (root, debootstrap, systemd-container).
systemd-test: $(VENV)/.dev
	$(BIN)/python -m tools.systemd_test
	$(BIN)/python -m tools.systemd_test -- --without-sockets

# For a host with a real NVIDIA GPU; says so and ends elsewhere.
gpu-check: $(VENV)/.demo
	$(BIN)/python -m tools.gpu_check

# Maps every ORCH id of the spec to its tests and writes docs/conformance.md.
conformance: $(VENV)/.dev model
	$(BIN)/pytest -q -n 2 --dist worksteal -m "orch and not accept" -p tests.support.conformance --conformance docs/conformance.md

# The sample policy, out of its source. The compiler is large and needed here alone, so it is no dependency.
policy: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check 'ziglang==0.17.0'
	$(BIN)/python -m ziglang build-exe examples/policy/pack.zig -target wasm32-freestanding -O ReleaseSmall -fno-entry -rdynamic -fstrip -femit-bin=examples/policy/pack.wasm
	rm -f examples/policy/pack.wasm.o

lock: $(VENV)/.dev
	$(BIN)/pip install --quiet 'uv>=0.9,<1'
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links --extra demo pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links --extra demo --extra dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .demo bench/build bench/results .mypy_cache .ruff_cache .pytest_cache
