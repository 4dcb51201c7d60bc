# Two commands: `make demo` and `make test`. For those who work on it: setup, check, bench.
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.PHONY: demo test setup check bench constraints clean

# Everything once, on a film with known events, without any model. Needs a Python and nothing else.
demo: $(VENV)/.installed
	@$(VENV)/bin/streamproc demo

$(VENV)/.installed: pyproject.toml constraints.txt .ci/python
	@echo "Installing into $(VENV)" >&2
	@[ -x $(PY) ] || .ci/python -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# Files side by side, as many as there are cores, but no more than four: each may start a broker of its own.
test: setup
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# The environment with everything the tests need; quick when nothing changed.
setup:
	@.ci/system
	@$(MAKE) --silent $(VENV)/.ready

# Oracles of the scores. They ask for much that we do not call (a PyTorch world, a Java), so they come alone.
ORACLES := SoccerNet pycocoevalcap

$(VENV)/.ready: pyproject.toml constraints.txt .ci/python
	@echo "Installing into $(VENV)" >&2
	@[ -x $(PY) ] || .ci/python -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	$(PIP) install --constraint constraints.txt --no-deps $(ORACLES)
	@touch $@

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/unit/test_imports.py tests/unit/test_errors.py tests/topics

# One bench: `make bench NAME=wire`.
bench: setup
	$(PY) -m tests.bench $(NAME)

# The newest versions that pyproject.toml allows, written down. Run the tests before committing them.
constraints:
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf $$fresh' EXIT; \
	.ci/python -m venv $$fresh; \
	$$fresh/bin/python -m pip --quiet install --editable '.[test]'; \
	$$fresh/bin/python -m pip --quiet install --no-deps $(ORACLES); \
	{ sed -n '/^#/p' constraints.txt; $$fresh/bin/python -m pip freeze --exclude-editable; } > $$fresh/constraints; \
	cp $$fresh/constraints constraints.txt

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
