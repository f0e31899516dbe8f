# `make demo` and `make test` do everything on a fresh Debian or Ubuntu, as root or with sudo.
# Elsewhere Python 3.11 or newer with venv has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get

# torch without CUDA: from pip's own wheel folder where there is one, else from PyTorch's index of CPU builds.
# `make TORCH_INDEX= ...` takes PyPI's build (on Linux, with CUDA).
TORCH_INDEX ?= $(if $(PIP_FIND_LINKS),,https://download.pytorch.org/whl/cpu)
TORCH_SOURCE := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# One test process a core, each with one thread, is faster than threads.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.PHONY: demo test test-all lint format clean

demo: $(VENV)/.package
	$(BIN)/xlstm-unet demo --output demo-output

# The plugin's tests run apart: a window's OpenGL and Triton do not go together in one process.
CORE_TESTS := --ignore=tests/plugin -p no:napari -p no:xvfb -p no:pytest-qt
PLUGIN_TESTS := tests/plugin -n 0

test: lint $(VENV)/.triton
	$(PYTEST) -m "not slow" $(CORE_TESTS)
	$(PYTEST) -m "not slow" $(PLUGIN_TESTS)

test-all: test
	$(PYTEST) -m slow $(CORE_TESTS)
	$(PYTEST) -m slow $(PLUGIN_TESTS)

lint: $(VENV)/.napari
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo-output runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { $(APT) update -q && $(APT) install -qy python3-venv; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "Python 3.11 or newer is needed; give one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.created constraints.txt
	$(PIP) $(TORCH_SOURCE) torch || $(PIP) torch
	@touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) -e '.[test,train]'
	@touch $@

# napari needs a display and OpenGL; here both in software.
$(VENV)/.napari: $(VENV)/.test
	$(PIP) -e '.[napari,test-napari]'
	@if command -v apt-get >/dev/null; then $(APT) update -q && \
	    $(APT) install -qy --no-install-recommends xvfb xauth libegl1 libgl1 libgl1-mesa-dri libdbus-1-3 \
	        libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1; fi
	@touch $@

# Optional: kernels are also tested in Triton's interpreter where Triton exists (Linux, x86-64; 700 MB).
$(VENV)/.triton: $(VENV)/.test
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	    $(PIP) triton || echo "Triton could not be installed; its tests will be skipped."; fi
	@touch $@
