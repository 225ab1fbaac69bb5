# Two commands on a fresh Debian or Ubuntu machine, as root or a user with sudo:
#   make demo   builds and boots the lab, and does the main job in it, start to end
#   make test   passes all tests: style, types, unit, contract, and the functional ones in the lab

VENV := .venv
PYTHON := $(VENV)/bin/python

# What `make test` runs in the lab. test_contracts.py (the contract suites of host and guest inside
# the lab's host) and test_kills.py take a quarter of an hour more, each: `make functional
# FUNCTIONAL=tests/functional` runs them, too.
FUNCTIONAL := tests/functional/test_refusals.py tests/functional/test_happy_path.py \
	tests/functional/test_service.py tests/contract/test_cinder.py \
	tests/functional/test_audit.py tests/functional/test_broken_parts.py

.PHONY: demo test check unit functional crash sample clean

demo: $(VENV)/ready
	tools/lab up
	$(PYTHON) tools/demo

test: check unit functional

check: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict tools/labkit tools/environment.py

unit: $(VENV)/ready
	$(PYTHON) -m pytest tests -m "not lab"

functional: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m "lab and not exhaustive" $(FUNCTIONAL)

# Every moment at which attachd can be killed: a table of how each ended. Two hours.
crash: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m lab tests/functional/test_kills.py

sample: $(VENV)/ready
	$(PYTHON) tools/sample > etc/attachd.conf.sample

$(VENV)/ready: pyproject.toml tools/setup
	tools/setup $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info
