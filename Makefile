# make demo | make test | make prove | make doc | make bench
# Everything is installed into .venv; targets can be run again and are then quick.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
DEMO := demo
# one BLAS thread a test process: two processes share two cores better than four threads do
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test lint prove doc bench clean

$(PY):
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: what follows then finds it installed and does not bring another build
$(VENV)/.torch: constraints.txt | $(PY)
	$(PIP) $$(grep -i '^torch==' constraints.txt)
	touch $@

$(VENV)/.demo: setup.cfg $(VENV)/.torch
	$(PIP) -c constraints.txt -e '.[flatmap]'
	touch $@

$(VENV)/.all: setup.cfg $(VENV)/.torch
	$(PIP) -c constraints.txt -e '.[all]'
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(PY) examples/run_demo.py $(DEMO)

lint: $(VENV)/.all
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

doc: $(VENV)/.all
	$(PY) -m sphinx -W --keep-going -q -b html doc doc/_build/html
	@echo "doc/_build/html/index.html"

test: lint doc
	$(TEST_ENV) $(PY) -m pytest -n 2 --dist loadfile

prove: $(VENV)/.all
	for proof in tests/prove/prove_*.py; do \
	  $(PY) $$proof --output doc/proofs/$$(basename $$proof .py | sed 's/^prove_//').json || exit 1; \
	done

bench: $(VENV)/.all
	for benchmark in benchmarks/bench_*.py; do $(PY) $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info doc/_build doc/auto_examples doc/generated
