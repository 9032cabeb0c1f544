# Keyturn's two commands are `make demo` and `make test`; everything they need is set up by them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STACK  ?= prod
PYTHON313 ?= 3.13
LOCK    = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--custom-compile-command 'make lock'

.PHONY: docs reference help setup demo test simulate mutants kill lint types licences audit sbom lock static check functions lambda programs worker bench clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## virtual environment with everything that development, tests and the sandbox need

$(READY): requirements-dev.txt requirements-uv.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing dependencies into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## pin anew what pyproject.toml and requirements-dev.in ask for; UPGRADE=1 takes newer versions
	@$(LOCK) pyproject.toml requirements-dev.in --extra all $(if $(UPGRADE),--upgrade) --output-file requirements-dev.txt
	@$(LOCK) pyproject.toml --extra all --constraint requirements-dev.txt --output-file requirements.txt
	@grep '^uv==' requirements-dev.txt | sed 's/ .*//' | $(LOCK) - --output-file requirements-uv.txt

demo: setup ## the main job, end to end, on local stand-ins
	@$(BIN)/python -m sandbox.demo

test: setup ## every test but the exhaustive ones; a quarter of an hour on two cores
	$(BIN)/python -m pytest -n 2 --dist loadgroup

simulate: setup ## every crash, lost answer and interleaving that the model has; takes an hour on two cores
	$(BIN)/python -m tests.simulation

mutants: setup ## deliberate faults in the engine, each of which must be caught; a few minutes
	$(BIN)/python -m tests.mutants

kill: setup ## kill the real keyturn at every request that it makes; takes the better part of an hour
	$(BIN)/python -m tests.kill

lint: setup ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## strict types
	$(BIN)/mypy

licences: setup ## whether what is installed at run time may be used; tools/licences.toml
	@$(BIN)/python -m tools.licences

audit: setup ## known vulnerabilities of it, where a service answers; OSV=URL asks one in place of the package index
	@$(BIN)/python -m tools.audit $(if $(OSV),--osv $(OSV))

sbom: setup ## build/keyturn.cdx.json, the bill of materials: CycloneDX, held against its schema
	@$(BIN)/python -m tools.sbom

static: lint types licences audit docs ## what can be checked without running it: style, types, licences, known vulnerabilities, links

check: static test bench ## everything: that, every test (docs' commands, report, fleet, packages, faults) and every measurement

functions: setup ## build/keyturn-functions.zip for Azure Functions, from Pulumi.$(STACK).yaml (STACK=prod)
	@$(BIN)/python -m hosting.packages.azure --stack $(STACK)

lambda: setup ## build/keyturn-lambda.zip for AWS Lambda, from Pulumi.$(STACK).yaml (STACK=prod)
	@$(BIN)/python -m hosting.packages.aws --stack $(STACK)

programs: setup ## strict types of hosting/aws, azure and kubernetes, against the packages of the clouds; a minute or two
	@$(BIN)/python -m tests.hosting

bench: setup ## measure what has a target, each beside what it is compared with
	@$(BIN)/python -m benchmarks

worker: setup ## drive the Functions app by the platform's own worker library; needs PYTHON313=3.13, a version or a path
	@$(BIN)/python -m tests.worker --python $(PYTHON313)

docs: setup ## the documentation as a site that works without a network, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

reference: setup ## docs/reference anew, from the code
	@$(BIN)/python -m tools.reference

clean: ## stop the sandbox; remove what was built and its state
	@if [ -x $(BIN)/keyturn ]; then $(BIN)/keyturn sandbox reset --yes || true; fi
	rm -rf $(VENV) .keyturn build dist *.egg-info .mypy_cache .ruff_cache .hypothesis Pulumi.sandbox.yaml
