# SPDX-License-Identifier: GPL-3.0-or-later
# Everything that a developer or CI does here, one target each: `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# An interpreter by version: pyenv's own binary (its shims fail where tests want many versions) or the system's.
python = $(firstword $(wildcard $(foreach v,$1,$(HOME)/.pyenv/versions/$v.*/bin/python$v /usr/bin/python$v)))
# ansible-core 2.19 runs on the oldest Python that it takes, 2.21 on a new one; else on the first that is there.
PYTHON_core-2.19 := $(call python,3.11 3.12 3.13)
PYTHON_core-2.21 := $(call python,3.13 3.12 3.14)
PYTHON_tools := $(PYTHON_core-2.19)
# The oldest Python that a node may have.
PYTHON_node := $(call python,3.9)

# One environment for each list of requirements, named by its content: a changed list is a new environment.
venv = build/venv-$1-$(shell sha256sum < tests/requirements-$1.txt | cut -c1-8)
VENV_core-2.19 := $(call venv,core-2.19)
VENV_core-2.21 := $(call venv,core-2.21)
VENV_node := $(call venv,node)
VENV_tools := $(call venv,tools)

BIN := $(VENV_tools)/bin
PY := $(VENV_core-2.19)/bin/python
READY := $(VENV_core-2.19)/ready
CORES := core-2.19 $(if $(PYTHON_core-2.21),core-2.21)
NODE_PYTHON := $(if $(PYTHON_node),node)

LINK := build/ansible_collections/fastpath/node
copy_of = build/copy-$1/ansible_collections/fastpath/node
OBJECT := roles/runtime/files/fastpath.bpf.o
SCRIPTS = $(shell git grep -lE '^\#!/bin/(ba)?sh')
PACKAGES = $(wildcard bench demo docs/*.py lab tests)

export PATH := $(CURDIR)/$(VENV_core-2.19)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build
export ANSIBLE_HOME := $(CURDIR)/build/ansible

STAGES := lint bpf docs-check sanity units import test-bpf test-kernel test-lab test-integration molecule test-vm
# --full for what is too slow for every run.
FULL ?=
# netkit takes longest, so it comes first.
SCENARIO ?= netkit default upgrade policy $(if $(FULL),kernels reboot switchdev)

.PHONY: help test test-full deps venv link bpf lint sanity units docs docs-check build import \
  test-bpf test-kernel test-lab test-integration molecule test-vm demo down shell bench bench-page clean interpreters \
  $(CORES:%=sanity-%) $(CORES:%=units-%) units-node $(SCENARIO:%=molecule-%)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: deps ## Run what CI runs, cheap checks first
	@$(MAKE) interpreters
	@echo '$(if $(FULL),everything is run,left out for time: tests marked full, each stage counts them, and units on the older ansible-core (make test-full))'
	@.ci/stages $(STAGES)

test-full: ## Run everything there is (hours)
	@$(MAKE) test FULL=--full

interpreters:
	@$(foreach c,core-2.19 core-2.21,echo "ansible-$c: $(or $(PYTHON_$c),SKIPPED, no Python 3.12 to 3.14 here)";)
	@echo "units on the oldest node: $(or $(PYTHON_node),SKIPPED, no Python 3.9 here)"

# --- What the rest stands on ---

deps: ## Install the Debian packages that the build and the tests need (root)
	.ci/deps

venv: $(foreach v,$(CORES) $(NODE_PYTHON) tools,$(VENV_$v)/ready) ## Make the Python environments

define make_venv
$(VENV_$1)/ready:
	@echo "making $$(@D) with $(PYTHON_$1)"
	@rm -rf build/venv-$1-*
	@$(PYTHON_$1) -m venv $$(@D)
	@$$(@D)/bin/pip install -qq -r tests/requirements-$1.txt
	@touch $$@
endef
$(foreach v,$(CORES) $(NODE_PYTHON) tools,$(eval $(call make_venv,$v)))

# Python and Ansible know the collection by its name, so it needs a path that ends in it.
link $(LINK):
	@mkdir -p $(dir $(LINK)) && ln -sfn $(CURDIR) $(LINK)

bpf: ## Compile the BPF object; a warning is an error
	$(MAKE) -C bpf

# --- Checks that need no node ---

lint: $(VENV_tools)/ready link ## Check style, types, shell scripts, licences and Ansible content
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(LINK)/plugins
	$(BIN)/mypy $(PACKAGES)
	shellcheck $(SCRIPTS)
	@! git grep -L SPDX-License-Identifier -- '*.py' '*.[ch]' '*.y*ml' '*.toml' Makefile .ci ':!changelogs/changelog.yaml' ':!*/__init__.py' \
	  || { echo 'these files have no licence line' >&2; exit 1; }
	$(BIN)/antsibull-changelog lint
	PATH=$(CURDIR)/$(BIN):$$PATH ansible-lint

# Two at a time, each in its own copy of the collection.
sanity: bpf ## Run ansible-test sanity on every ansible-core
	@$(MAKE) -k -j2 -O $(CORES:%=sanity-%)

units: bpf link ## Run the unit tests on the newest ansible-core and on the oldest Python of a node
	@$(MAKE) -k -j2 -O $(patsubst %,units-%,$(if $(FULL),$(CORES),$(lastword $(CORES))) $(NODE_PYTHON))

define for_core
sanity-$1: $(VENV_$1)/ready
	@.ci/copy $(call copy_of,$1) $(OBJECT)
	.ci/ansible-test $(VENV_$1) $(call copy_of,$1) sanity

units-$1: $(VENV_$1)/ready
	@.ci/copy $(call copy_of,$1) $(OBJECT)
	.ci/ansible-test $(VENV_$1) $(call copy_of,$1) units --python $(patsubst python%,%,$(notdir $(PYTHON_$1)))
endef
$(foreach c,$(CORES),$(eval $(call for_core,$c)))

units-node: $(VENV_node)/ready
	$(VENV_node)/bin/python -m pytest -q tests/unit

docs: $(READY) link ## Write docs/modules and docs/roles from their specifications
	$(PY) docs/generate.py

docs-check: $(READY) $(VENV_tools)/ready link ## Check that these pages are current and well-formed
	$(PY) docs/generate.py --check
	$(BIN)/antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self $(LINK)

build: $(READY) bpf ## Build the collection's artifact in build/
	@rm -f build/fastpath-node-*.tar.gz
	@.ci/copy $(call copy_of,build) $(OBJECT)
	ansible-galaxy collection build --output-path build $(call copy_of,build)

import: build $(VENV_tools)/ready ## Check the artifact as Galaxy does when it imports one
	cd build && PATH=$(CURDIR)/$(BIN):$$PATH python -m galaxy_importer.main fastpath-node-*.tar.gz

# --- Tests on this machine's kernel, as root ---

# Two tests at a time, where each has nodes of its own.
PAIRS := -n 2 --dist loadgroup

test-bpf: bpf $(READY) link ## Run the BPF programs on packets (BPF_PROG_TEST_RUN)
	$(PY) -m pytest $(FULL) $(PAIRS) tests/bpf

test-kernel: bpf $(READY) link ## Test what talks to the kernel
	$(PY) -m pytest $(FULL) tests/kernel

test-lab: bpf $(READY) link ## Test the lab, the demo and the benchmarks themselves
	$(PY) -m pytest $(FULL) tests/demo tests/bench tests/lab

# Half of the time they wait for the kernel to let go of links.
test-integration: bpf $(READY) link ## Test the modules on real name spaces and lab nodes
	$(PY) -m pytest $(FULL) -n 3 --dist loadgroup tests/integration

molecule: bpf $(VENV_tools)/ready link ## Run molecule, two scenarios at a time; SCENARIO=name runs one
	@$(MAKE) $(if $(word 2,$(SCENARIO)),-j2 -O) $(SCENARIO:%=molecule-%)

$(SCENARIO:%=molecule-%): molecule-%:
	PATH=$(CURDIR)/$(BIN):$$PATH molecule test -s $*

# --- Tests on the kernels that people have, in virtual machines, as root ---

test-vm: bpf $(READY) link ## Run a smoke of the tests in virtual machines with other kernels
	$(PY) -m pytest $(FULL) $(PAIRS) tests/vm tests/nic

# --- A network to look at, as root ---

# A make of its own finds the Python that `deps` has just installed.
demo: deps ## Make three nodes, converge them twice, show the network
	@$(MAKE) bpf link $(READY)
	@$(PY) -m demo

down: $(READY) ## Remove the demo's nodes
	$(PY) -m lab down --name demo

shell: $(READY) ## Open a shell on a demo node: NODE=node1
	@$(PY) -m lab shell --name demo $(NODE)

bench bench-page: export PYTHONPATH := $(CURDIR)/build
bench: bpf $(READY) link ## Measure what packets, policies and convergence cost (PART="policies tries" runs some)
	$(PY) -m bench $(PART)

bench-page: bpf $(READY) link ## Measure, on an idle machine, what docs/benchmarks.md shows, and write it there
	for part in $(or $(PART),policies tries revocation); do $(PY) -m bench $$part | $(PY) -m bench.page $$part; done

clean: ## Remove what was built
	rm -rf build $(OBJECT)
