# `make setup` is quick when nothing changed; everything else stands on it.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: check
check:
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
