# `make demo` and `make test` set up all they need in .venv; a second run reinstalls nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)-peers
# MLX's CPU build is an extra on Linux; on macOS the plain package has everything.
EXTRA := $(if $(filter Linux,$(shell uname -s)),cpu,)
comma := ,

PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: demo test test-all test-peers notebooks lab lint types doctest wheel bench bench-peers clean

demo: $(VENV)/.demo
	$(BIN)/python -m smoothloss

# The mathematics eagerly, and a sample of what mx.compile makes of it.
test: $(VENV)/.demo $(VENV)/.test
	$(PYTEST) -m 'not full'

# Every case: on a CPU, g++ compiles about two thousand kernels once.
test-all: $(VENV)/.demo $(VENV)/.test
	$(PYTEST)

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

# The same tests as `make test`, without the source tree in reach, against the wheel that users get.
wheel: $(VENV)/.build
	rm -rf build dist
	$(BIN)/python -m build
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/venv/bin/python -m pip install --quiet --group test
	wheel=$$(ls $(CURDIR)/dist/*.whl) && \
	build/venv/bin/python -m pip install --quiet "$$wheel[$(if $(EXTRA),$(EXTRA)$(comma))demo]"
	mkdir -p build/outside && cp -r tests benchmarks docs notebooks pyproject.toml README.md build/outside/
	cd build/outside && ../venv/bin/pytest --numprocesses auto --dist worksteal -m 'not full'

bench: $(VENV)/.demo # for the picture
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/run.py --call-sites --out benchmarks/call-sites

# Beside PyTorch and JAX, in an environment of their own; first on one core, then on two.
bench-peers: $(PEERS)/.setup
	$(PEERS)/bin/python benchmarks/run.py --headline --cores 1 --out benchmarks/peers-1-core
	$(PEERS)/bin/python benchmarks/run.py --headline --cores 2 --out benchmarks/peers-2-cores
	$(PEERS)/bin/python benchmarks/run.py --call-sites --cores 2 --out benchmarks/peers-call-sites

clean:
	rm -rf $(VENV) $(PEERS) build dist

$(VENV)/.setup: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.$(if $(EXTRA),[$(EXTRA)],)'
	touch $@

$(VENV)/.demo: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --editable '.[$(if $(EXTRA),$(EXTRA)$(comma))demo]'
	touch $@

$(PEERS)/.setup: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(PEERS)/bin/python -m pip install --quiet --group peers
	$(PEERS)/bin/python -m pip install --quiet --editable '.[$(if $(EXTRA),$(EXTRA)$(comma))demo]'
	touch $@

$(VENV)/.lint: $(VENV)/.demo $(VENV)/.test # whose packages are checked against
$(VENV)/.test $(VENV)/.lint $(VENV)/.build $(VENV)/.notebooks $(VENV)/.lab: $(VENV)/.%: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --group $*
	touch $@
