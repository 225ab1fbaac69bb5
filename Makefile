# Two commands on a fresh Debian or Ubuntu machine, as root or a user with sudo:
#   make demo   builds and boots the lab, and does the main job in it, start to end
#   make test   style, types, the unit and contract tests, the packages, and most functional tests in
#               the lab (those that run apart, and how, are named below)

VENV := .venv
PYTHON := $(VENV)/bin/python

# What `make test` runs in the lab: three quarters of an hour. Apart, for their time, or since they
# turn the lab's host inside out: the contract suites on the real parts (`make contracts`),
# test_fault_matrix.py, test_host_life.py (which reboots the host), test_doctor.py (which breaks all
# that is looked at), test_howto.py and test_package.py (which install attachd otherwise).
# `make functional FUNCTIONAL=tests/functional` runs them, too. What is marked exhaustive runs by
# itself only: `make crash` has all kills, `make faults` all faults, `make many` many volumes.
FUNCTIONAL := tests/functional/test_refusals.py tests/functional/test_happy_path.py \
	tests/functional/test_service.py tests/functional/test_audit.py \
	tests/functional/test_broken_parts.py tests/functional/test_guarding.py \
	tests/functional/test_kinds.py tests/functional/test_extend.py \
	tests/functional/test_adopt.py tests/functional/test_old_style.py \
	tests/functional/test_multipath.py tests/functional/test_trace.py \
	tests/functional/test_docs.py tests/functional/test_client.py \
	tests/functional/test_numbers.py tests/functional/test_kills.py \
	tests/functional/test_devstack_plugin.py

.PHONY: demo test check docs unit lab functional cloud contracts crash faults many bench deb lock \
	sample clean

demo: $(VENV)/ready
	tools/lab up
	$(PYTHON) tools/demo

# The unit tests and the package need one processor, the lab's build and boot another.
test: check docs
	$(MAKE) -j2 unit lab deb
	$(MAKE) functional

check: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict tools/labkit tools/sharekit tools/benchkit tools/environment.py docs/conf.py docs/extensions

# The pages, in build/html; the diagrams in them must be what the program draws now.
docs: $(VENV)/ready
	tools/diagrams --check
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/html

unit: $(VENV)/ready
	$(PYTHON) -m pytest tests -m "not lab and not deb"

lab: $(VENV)/ready
	tools/lab up

# From the lab's clean state: a run that was killed may have left anything there.
functional: $(VENV)/ready
	tools/lab reset
	$(PYTHON) -m pytest -m "lab and not exhaustive" --durations=30 $(FUNCTIONAL)

# Those functional tests that any cloud and libvirt host will do for: attachd runs on the host,
# tools/guest-host made it fit for their guests, and OS_CLOUD is the cloud's administrator in a
# clouds.yaml. HOST=ssh:root@NAME is another host than this machine.
HOST := local
cloud: $(VENV)/ready
	ATTACHD_TEST_HOST=$(HOST) $(PYTHON) -m pytest -m "cloud and not exhaustive" \
		--durations=10 tests/functional

# The contract suites that the fakes pass in `make unit`, on the real parts: Cinder, and inside the
# lab's host open-iscsi and libvirt. Half an hour.
contracts: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m lab --durations=10 tests/contract tests/functional/test_contracts.py

# Every moment at which attachd can be killed: a table of how each ended, in build/ as it grows.
# An hour and a half.
crash: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m lab tests/functional/test_kills.py \
		tests/functional/test_kills_old_style.py

# Every fault at every step that it can be had at, and what else make test leaves out for its time:
# an hour and a half.
faults: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m lab tests/functional/test_fault_matrix.py \
		tests/functional/test_broken_parts.py
	$(PYTHON) -m pytest -m "lab and exhaustive" tests/contract tests/functional/test_guarding.py \
		tests/functional/test_kinds.py tests/functional/test_multipath.py

# 24 volumes on one guest, and eight guests with eight each: an hour.
many: $(VENV)/ready
	tools/lab up
	$(PYTHON) -m pytest -m lab tests/functional/test_many.py

# Has anything become slower or larger? Ratios within a run, against those of the stored run; half an
# hour. `tools/bench --floor --parallel 8 > tools/benchkit/stored.json` stores another.
bench: $(VENV)/ready
	mkdir -p build
	tools/bench --floor --parallel 8 --against tools/benchkit/stored.json > build/bench.json

# The Debian package, for the lab's Debian, in dist/; and what it must be.
deb: $(VENV)/ready
	tools/deb
	$(PYTHON) -m pytest -m deb tests/packaging

# The versions of what the package carries. Those there are kept where they fit, unless
# `make lock LOCK=--upgrade`.
lock: $(VENV)/ready
	$(VENV)/bin/pip install --quiet 'uv>=0.13'
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-package libvirt-python --custom-compile-command "make lock" $(LOCK) \
		--output-file debian/requirements.txt pyproject.toml

sample: $(VENV)/ready
	$(PYTHON) tools/sample > etc/attachd.conf.sample

$(VENV)/ready: pyproject.toml tools/setup
	tools/setup $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info
