# `make demo` and `make test` do everything on a fresh Debian or Ubuntu, as root or with sudo.
# Elsewhere Python 3.11 or newer with venv has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install -q -c constraints.txt
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get

# uv installs in a third of pip's time. It does not read pip's settings: those in the environment are passed on.
export UV_HTTP_TIMEOUT ?= 180
$(if $(PIP_FIND_LINKS),$(eval export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)))
$(if $(PIP_INDEX_URL),$(eval export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)))
$(if $(PIP_CERT),$(eval export SSL_CERT_FILE ?= $(PIP_CERT)))

# torch without CUDA: from pip's own wheel folder where there is one, else from PyTorch's index of CPU builds.
# `make TORCH_INDEX= ...` takes PyPI's build (on Linux, with CUDA).
TORCH_INDEX ?= $(if $(PIP_FIND_LINKS),,https://download.pytorch.org/whl/cpu)
TORCH_SOURCE := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

# One test process a core, each with one thread, is faster than threads.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.PHONY: demo test test-core test-plugin test-extension test-all lint format clean

demo: $(VENV)/.package
	$(BIN)/xlstm-unet demo --output demo-output

# The plugin's tests run apart: a window's OpenGL and Triton do not go together in one process.
CORE_TESTS := --ignore=tests/plugin --ignore=tests/extension -p no:napari -p no:xvfb -p no:pytest-qt
PLUGIN_TESTS := tests/plugin -n 0

# The Slicer extension's tests run on real Slicer parts from PyPI, which need Python 3.11: the stable line in
# `test`, the next one and a web application in `test-all`. Their worker runs in $(VENV).
SLICER := .venv-slicer
SLICER_NEXT := .venv-slicer-next
SLICER_WEB := .venv-slicer-web
SLICER_PYTHON ?= $(shell command -v python3.11 || echo python3)
SLICER_TESTS := OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen
SLICER_PYTEST := -m pytest -q -c tests/extension/pytest.ini

# Side by side what leaves a core idle by itself.
test: $(VENV)/.napari $(VENV)/.triton $(SLICER)/.ready
	$(MAKE) -j2 lint test-core
	$(MAKE) -j2 -O test-plugin test-extension

test-core: $(VENV)/.triton
	$(PYTEST) -m "not slow" $(CORE_TESTS)

test-plugin: $(VENV)/.napari
	$(PYTEST) -m "not slow" $(PLUGIN_TESTS)

test-extension: $(SLICER)/.ready
	$(SLICER_TESTS) $(SLICER)/bin/python $(SLICER_PYTEST) -m "not slow" tests/extension

test-all: test $(VENV)/.bioimageio $(SLICER_NEXT)/.ready $(SLICER_WEB)/.ready
	$(PYTEST) -m slow $(CORE_TESTS)
	$(SLICER_TESTS) $(SLICER)/bin/python $(SLICER_PYTEST) -m "slow and not browser" tests/extension
	$(SLICER_TESTS) $(SLICER_NEXT)/bin/python $(SLICER_PYTEST) -m "not slow" tests/extension
	xvfb-run -a $(SLICER_WEB)/bin/python $(SLICER_PYTEST) -m browser tests/extension/web
	$(PYTEST) -m slow $(PLUGIN_TESTS)

lint: $(VENV)/.napari
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(SLICER) $(SLICER_NEXT) $(SLICER_WEB) build dist demo-output runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { $(APT) update -q && $(APT) install -qy python3-venv; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "Python 3.11 or newer is needed; give one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(BIN)/uv: | $(VENV)/.created
	$(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt uv

$(VENV)/.torch: $(VENV)/.created constraints.txt | $(BIN)/uv
	$(UV) --python $(BIN)/python $(TORCH_SOURCE) torch || $(UV) --python $(BIN)/python torch
	@touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	$(UV) --python $(BIN)/python -e .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	$(UV) --python $(BIN)/python -e '.[test,train]'
	@touch $@

# napari needs a display and OpenGL; here both in software.
$(VENV)/.napari: $(VENV)/.test
	$(UV) --python $(BIN)/python -e '.[napari,test-napari]'
	@if command -v apt-get >/dev/null; then $(APT) update -q && \
	    $(APT) install -qy --no-install-recommends xvfb xauth libegl1 libgl1 libgl1-mesa-dri libdbus-1-3 \
	        libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1; fi
	@touch $@

# Optional: bioimageio.core checks our exports; its needs clash with ours, so it has an environment of its own.
$(VENV)/.bioimageio: $(VENV)/.created | $(BIN)/uv
	@$(PYTHON) -m venv $(VENV)/bioimageio && \
	    $(UV) --python $(VENV)/bioimageio/bin/python $(TORCH_SOURCE) torch && \
	    $(BIN)/uv pip install -q --python $(VENV)/bioimageio/bin/python bioimageio.core 'pydantic<2.14' || \
	    { rm -rf $(VENV)/bioimageio; echo "bioimageio.core could not be installed; its tests will be skipped."; }
	@touch $@

# Optional: kernels are also tested in Triton's interpreter where Triton exists (Linux, x86-64; 700 MB).
$(VENV)/.triton: $(VENV)/.test
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	    $(UV) --python $(BIN)/python triton || echo "Triton could not be installed; its tests will be skipped."; fi
	@touch $@

$(SLICER)/.ready: $(VENV)/.napari
	$(SLICER_PYTHON) -m venv $(SLICER)
	$(UV) --python $(SLICER)/bin/python slicer-core==5.12.4.0 pytest PyQt6 cmake
	@touch $@

$(SLICER_NEXT)/.ready: $(VENV)/.napari
	$(SLICER_PYTHON) -m venv $(SLICER_NEXT)
	$(UV) --python $(SLICER_NEXT)/bin/python slicer-core==5.13.31053.0 pytest PyQt6 cmake
	@touch $@

# Chromium comes from Playwright, or from the system's packages where that cannot be reached.
$(SLICER_WEB)/.ready: $(VENV)/.napari
	$(SLICER_PYTHON) -m venv $(SLICER_WEB)
	$(UV) --python $(SLICER_WEB)/bin/python 'trame-slicer[standalone]==2.0.0' playwright pytest
	$(SLICER_WEB)/bin/playwright install chromium || $(APT) install -qy --no-install-recommends chromium
	@touch $@
