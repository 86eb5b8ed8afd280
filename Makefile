# `make demo` and `make test` set up all they need in .venv; a second run reinstalls nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)-peers
OLDEST := $(VENV)-oldest
# MLX's CPU build is an extra on Linux; on macOS the plain package has everything.
EXTRA := $(if $(filter Linux,$(shell uname -s)),cpu,)
comma := ,

XDIST := --numprocesses auto --dist worksteal
PYTEST := $(BIN)/python -m pytest $(XDIST)

# Where `make bench` writes; with OUT=benchmarks, over the results that the docs quote.
OUT := benchmarks/mine

.PHONY: demo test test-all test-rest test-devices test-oldest test-peers notebooks lab lint types doctest wheel \
	bench bench-peers clean

demo: $(VENV)/.demo
	$(BIN)/python -m smoothloss

# The mathematics eagerly, and a sample of what mx.compile makes of it.
test: $(VENV)/.demo $(VENV)/.test
	$(PYTEST) -m 'not full'

# Every case: on a CPU, g++ compiles about two thousand kernels once.
test-all: $(VENV)/.demo $(VENV)/.test
	$(PYTEST)

# What `make test` leaves out of it.
test-rest: $(VENV)/.demo $(VENV)/.test
	$(PYTEST) -m full

# What differs on Macs and on GPUs, emulated on this CPU: see docs/devices.md.
ON_GPU := catalog contract defects demo devices elementary exportable gpu_sums inputs irls_arguments kinks \
	learned module_arguments modules norm own_losses readme reduction scale sums tracing transforms tuning vector \
	weights
FUSED := contract devices inputs norm transforms
FLUSHING := accuracy contract defects devices elementary kinks
test-devices: $(VENV)/.demo $(VENV)/.test
	SMOOTHLOSS_DEVICE=emulated-gpu $(PYTEST) -m 'not full' $(ON_GPU:%=tests/test_%.py)
	SMOOTHLOSS_DEVICE=emulated-fused $(PYTEST) -m 'not full' $(FUSED:%=tests/test_%.py)
	SMOOTHLOSS_DEVICE=emulated-flushing $(PYTEST) -m 'not full' $(FLUSHING:%=tests/test_%.py)

# With the oldest MLX and NumPy that pyproject.toml allows, the files that look at what those do.
ON_OLDEST := accuracy contract defects demo exportable inputs irls kinks modules norm reduction scale transforms weights
test-oldest: $(OLDEST)/.setup
	$(OLDEST)/bin/python -m pytest $(XDIST) -m 'not full' $(ON_OLDEST:%=tests/test_%.py)

# Beside PyTorch, Keras, optax, SciPy and others; on Python 3.11.
test-peers: $(PEERS)/.setup
	$(PEERS)/bin/python -m pytest tests/peers

doctest: $(VENV)/.test
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' smoothloss README.md

# Each in a kernel of its own. With ARGS=--overwrite, what they print and draw is kept.
notebooks: $(VENV)/.demo $(VENV)/.notebooks
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 $(ARGS) notebooks

lab: $(VENV)/.demo $(VENV)/.lab
	cd notebooks && ../$(BIN)/jupyter lab

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# What type checkers see: of the sources, and of the package as it is installed.
types: $(VENV)/.lint
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python --level error
	rm -rf build/typed && mkdir -p build/typed
	$(BIN)/python -m pip install --quiet --no-deps --target build/typed .
	cd build && PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=typed ../$(BIN)/python ../tests/verify_types.py

# The wheel that users get, without the source tree in reach: its names, files and main job.
ON_WHEEL := benchmarks catalog contract demo demo_output docs inputs modules norm notebooks own_losses readme
wheel: $(VENV)/.build
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m venv build/venv
	build/venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/venv/bin/python -m pip install --quiet --group test
	wheel=$$(ls $(CURDIR)/dist/*.whl) && \
	build/venv/bin/python -m pip install --quiet "$$wheel[$(if $(EXTRA),$(EXTRA)$(comma))demo]"
	mkdir -p build/outside && cp -r tests benchmarks docs notebooks pyproject.toml *.md Makefile build/outside/
	cd build/outside && ../venv/bin/pytest $(XDIST) -m 'not full' $(ON_WHEEL:%=tests/test_%.py)

bench: $(VENV)/.demo # for the picture
	$(BIN)/python benchmarks/run.py --out $(OUT)/results
	$(BIN)/python benchmarks/run.py --call-sites --out $(OUT)/call-sites

# Beside PyTorch and JAX, in an environment of their own; first on one core, then on two.
bench-peers: $(PEERS)/.setup
	$(PEERS)/bin/python benchmarks/run.py --headline --cores 1 --out $(OUT)/peers-1-core
	$(PEERS)/bin/python benchmarks/run.py --headline --cores 2 --out $(OUT)/peers-2-cores
	$(PEERS)/bin/python benchmarks/run.py --call-sites --cores 2 --out $(OUT)/peers-call-sites

clean:
	rm -rf $(VENV) $(PEERS) $(OLDEST) build dist

# A virtual environment, made anew unless it has a Python that is new enough; macOS' own is 3.9.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
define venv
	@$(1)/bin/python -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || { \
	$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	echo "smoothloss needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	"install one, and type, say, make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }; \
	echo $(PYTHON) -m venv --clear $(1); $(PYTHON) -m venv --clear $(1); }
	$(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
endef

$(VENV)/.setup: pyproject.toml
	$(call venv,$(VENV))
	$(BIN)/python -m pip install --quiet --editable '.$(if $(EXTRA),[$(EXTRA)],)'
	touch $@

$(VENV)/.demo: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --editable '.[$(if $(EXTRA),$(EXTRA)$(comma))demo]'
	touch $@

$(OLDEST)/.setup: pyproject.toml
	$(call venv,$(OLDEST))
	$(OLDEST)/bin/python -m pip install --quiet --group oldest \
		--editable '.[$(if $(EXTRA),$(EXTRA)$(comma))demo]'
	touch $@

$(PEERS)/.setup: pyproject.toml
	$(call venv,$(PEERS))
	$(PEERS)/bin/python -m pip install --quiet --group peers
	$(PEERS)/bin/python -m pip install --quiet --editable '.[$(if $(EXTRA),$(EXTRA)$(comma))demo]'
	touch $@

$(VENV)/.lint: $(VENV)/.demo $(VENV)/.test # whose packages are checked against
$(VENV)/.test $(VENV)/.lint $(VENV)/.build $(VENV)/.notebooks $(VENV)/.lab: $(VENV)/.%: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --group $*
	touch $@
