# Two commands do everything: `make demo` and `make test`. Both set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup system demo test check clean

help:
	@echo "make setup   virtual environment in .venv and the ARM cross-compiler"
	@echo "make demo    compile the shipped run for a Crazyflie 2.1 and check it on a virtual one"
	@echo "make test    ruff, mypy and pytest"
	@echo "make clean   remove what was built"

setup: system $(STAMP)

system:
	@sh scripts/system_packages.sh

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11: run make PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "error: cannot make a virtual environment: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@sh scripts/demo.sh

test: setup check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
