# Every path is relative to this folder, so the tree may lie anywhere, also below a path with spaces.
# PYTHON=python3.12 picks an interpreter; else the first of python3, python3.13, 3.12, 3.11 that is 3.11 or later.

PY := .venv/bin/python
# Else each process of the tests would compile Clipper again, and pytest all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check format test test-all test-scale compiled wheel release audit lowest mutants scale fuzz fuzz-server flood rollout soak bench against workers contexts feedback batching pipelines regret best-arm calibration paper paper-cluster gpu peers peers-rpc conformance demo image docs docs-test dashboard-pictures notebooks clean

help:
	@echo "make test    set up .venv, then lint, type-check and test what takes minutes in all; PYTEST=\"tests/worker/frontend -x\" picks tests"
	@echo "make test-all  make test, then all other tests, as CI does: what takes long, what runs alone, and the compiled form"
	@echo "make test-scale  run the tests that take too long for CI: on a real Ray cluster, with two supervisors, on machines that lose their power, with docker compose, under systemd"
	@echo "make wheel   build wheels with the query path compiled, for each Python of 3.11 to 3.14 that is there"
	@echo "make lowest  serve a model with the lowest versions of dependencies that pyproject.toml allows"
	@echo "make image   build a Docker image with a compiled wheel; PYTHON=python3.11 picks its Python"
	@echo "make compiled  test the compiled form alone"
	@echo "make demo    train two models on MNIST and serve them for a minute"
	@echo "make bench   measure against the floors; ROWS=\"sum4_c32 linear_svm_c32\" picks rows"
	@echo "make against COMMIT=abc123  compare the processor time of a query with that of another commit; INSTRUCTIONS=1 counts instructions"
	@echo "make workers  what one and two query workers answer on one and two cores; WORKERS=\"--cores 4 --workers 1 2 4\" measures others"
	@echo "make contexts  queries and feedback in ten million contexts, in SQLite and in Redis; CONTEXTS=\"--contexts 100000 --stores redis\""
	@echo "make feedback  more feedback than can be learned, from clients that do not wait; FEEDBACK=\"--stores redis --at-once 0 --rates 2000\""
	@echo "make peers   measure other servers of models, each beside Clipper; PEERS=\"mosec ray\" TASKS=\"svm table\" ROUNDS=8 picks some"
	@echo "make peers-rpc  what gRPC and REST cost Clipper, PyTriton and MLServer; TASK=sum ROUNDS=6 SAVE=1"
	@echo "make conformance  ask Clipper, Triton and MLServer with the same calls and other people's clients, and compare; CLIENTS=kserve_clients picks some, SAVE=1 writes docs/open-inference.md"
	@echo "make batching  search the rules that the batching is measured beside, again; PROFILES=\"'3ms 4 replicas'\" picks some"
	@echo "make pipelines  what pipelines answer under load beside the best fixed split of their SLO; PIPELINES=\"--shapes chain --models slept\" picks some"
	@echo "make regret  what policies lose by having to learn, beside the best settings of textbook policies; POLICIES=\"exp3 ucb1\" picks some"
	@echo "make calibration  how sure answers about real pictures are and how often right, before and after feedback"
	@echo "make best-arm  how often the test that ends itself, and reports, are wrong, and how much feedback they take; RUNS=1000"
	@echo "make paper   the paper's figures that are not of this commit again, on real data; FIGURES=\"ensembles failure\" picks some"
	@echo "make paper-cluster  the paper's figure 6 on a Ray cluster of four nodes on this machine, and Ray Serve on the same nodes"
	@echo "make gpu     the paper's figures 3, 4, 6 and 11 on real nets, with PyTriton beside them, on GPUs if there are any; FIGURES=\"figure_3 figure_6\" picks some, SHORT=1 sees that all works, PRETEND=2 has two GPUs that are not there"
	@echo "make fuzz    send the server what nobody should, from all sides, for SECONDS=60"
	@echo "make fuzz-server  send a running server INPUTS=1000000 of the same, and look at its memory and its stalls"
	@echo "make flood   send a running server the most feedback that it takes at once, and look at its memory and at others' waits"
	@echo "make rollout  throw EXAMPLES=5000 times everything at what decides what runs, in any order"
	@echo "make mutants  change the code that decides, a change at a time for MINUTES=20, and see whether its tests notice; FOLDERS=supervisor/rollout SEED=7"
	@echo "make release build and check all that a release uploads, in dist/: wheels, source, image, site, bill of materials, notes; AUDIT=later leaves the audit for later, ARM=1 adds wheels for aarch64, BASE=debian needs no registry for the image"
	@echo "make audit   ask pip-audit's service whether the packages that Clipper needs have known weaknesses"
	@echo "make soak    run a server under load, changes and kills for MINUTES=10, and see whether anything of it grows"
	@echo "make scale   what changes take beside 10 to 1,000 models with 64 workers, and what the supervisor takes; SIZES=\"10 100\", SAVE=1 writes docs/scale.md"
	@echo "make docs    build the site of docs/ into build/site, and refuse links that lead nowhere"
	@echo "make docs-test  run the code of pages that needs frameworks, environments and clients of others"
	@echo "make dashboard-pictures  make the pictures of docs/dashboard.md anew, of a server under load"
	@echo "make notebooks  run the notebooks of docs/notebooks; SAVE=1 stores their outputs in them"
	@echo "make check   lint, types, spelling, the rules for prose and links only"
	@echo "make format  let ruff format and fix, and break long lines of pages"
	@echo "make clean   remove .venv and caches"

setup:
	@sh scripts/setup.sh dev

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib
	$(PY) -m pytest tests/docs/test_prose.py tests/scripts/test_docs_tree.py

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) scripts/wrap_pages.py $$(git ls-files '*.md')

# To collect all other files, too, takes as long as ten of their tests.
ALONE := $(shell grep -rl --include=test_*.py 'mark\.alone' tests)

# Most tests wait for processes, a third of their time: three at a time keep two cores busy (tests/conftest.py says which
# stay together).
TOGETHER := -n 3 --dist loadfile --no-loadscope-reorder

# What every change is tested with, in minutes: the tests that are not marked, and a part of each property's examples.
ifdef PYTEST
test: check
	$(PY) -m pytest $(PYTEST)
else
test: check
	$(PY) -m pytest -m "not long and not alone" --hypothesis-profile quick $(TOGETHER)
endif

# And all else. pytest comes last: its closing line is the last line of a run.
test-all: test
	$(PY) -m pytest -m alone $(ALONE)
	@$(MAKE) --no-print-directory compiled
	$(PY) -m pytest -m "(long or hypothesis) and not alone" $(TOGETHER)

# What takes too long for CI: a whole cluster of Ray, and servers that wait for a lease to end.
test-scale: setup
	@command -v haproxy >/dev/null || sh scripts/apt-install.sh haproxy
	$(PY) -m pytest -m scale

# The compiled form is tested by the tests of what is compiled, without the longest simulations, and by tests of whole servers.
COMPILED := tests/base/test_build.py tests/worker/abstraction tests/worker/selection/test_application.py tests/worker/selection/test_memory.py \
	tests/worker/selection/test_contexts.py tests/worker/selection/test_committer.py tests/worker/selection/test_learner.py \
	tests/learning/mathematics tests/worker/selection/feedback tests/learning/policies/test_distribution.py \
	tests/worker/selection/test_stages.py tests/worker/selection/test_waiting.py tests/worker/frontend/http/test_connection.py \
	tests/worker/frontend/http/test_connection_fuzz.py tests/worker/frontend/http/test_connection_limits.py tests/worker/frontend/http/test_cross_origin.py \
	tests/base/test_turn_budget.py \
	tests/worker/frontend/http/test_endpoints.py tests/worker/frontend/test_predict.py tests/worker/frontend/test_predict_body.py \
	tests/worker/frontend/test_fuzz.py \
	tests/worker/frontend/rpc/test_statuses.py tests/worker/frontend/rpc/test_contents.py tests/worker/frontend/rpc/test_h2load.py tests/worker/test_worker.py \
	tests/integration/test_http_requests.py tests/integration/test_http_faults.py tests/integration/test_lying_containers.py \
	--ignore=tests/worker/abstraction/batching/test_goodput.py
compiled: setup
	@compiled=$$(sh scripts/compiled.sh) && \
		CLIPPER_FORM=compiled "$$compiled/bin/python" -m pytest $(COMPILED) -m "not alone and not pure" $(TOGETHER)

wheel:
	@sh scripts/wheel.sh

release: setup
	@sh scripts/release.sh

# Of .venv, which has all that a release installs, at the same versions, and what develops it.
audit: setup
	@tool=$$(sh scripts/environment.sh release requirements/release.txt) && \
		"$$tool/bin/python" scripts/audit.py "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

lowest: setup
	@sh scripts/lowest.sh

SECONDS ?= 60
fuzz: setup
	@$(PY) -m tests.fuzz --seconds $(SECONDS)

INPUTS ?= 1000000
fuzz-server: setup
	@$(PY) -m tests.benchmarks.fuzz_live --inputs $(INPUTS)

flood: setup
	@$(PY) -m tests.benchmarks.flood

EXAMPLES ?= 5000
rollout: setup
	@ROLLOUT_EXAMPLES=$(EXAMPLES) $(PY) -m pytest tests/supervisor/rollout/test_simulation.py --timeout 0 --hypothesis-seed=$$(date +%s)

image:
	@sh scripts/image.sh

mutants:
	@sh scripts/setup.sh mutants
	@$(PY) -m tests.mutants --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED)) $(if $(SLOWEST),--slowest $(SLOWEST)) $(FOLDERS)

scale:
	@sh scripts/setup.sh paper
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@$(PY) -m benchmarks.scale $(SIZES) $(if $(SAVE),--save)

soak: setup
	@$(PY) -m benchmarks.soak --minutes $(or $(MINUTES),10) $(if $(RATE),--rate $(RATE))

docs: setup
	@sh scripts/docs.sh

docs-test: setup
	@$(PY) -m tests.docs.recipes
	@$(PY) -m tests.docs.slow_pages

dashboard-pictures: setup
	@PYTHONPATH=. $(PY) scripts/dashboard_pictures.py

notebooks: setup
	@sh scripts/notebooks.sh $(if $(SAVE),--save)

demo:
	@sh scripts/setup.sh bench
	@$(PY) -m examples.demo

bench:
	@sh scripts/setup.sh bench
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@command -v g++ >/dev/null || sh scripts/apt-install.sh g++
	@command -v javac >/dev/null || sh scripts/apt-install.sh default-jdk-headless
	@$(PY) -m benchmarks $(ROWS)

COMMIT ?= HEAD~1
against:
	@sh scripts/setup.sh bench
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@{ command -v valgrind && ls /usr/lib/*/faketime/libfaketime.so.1; } >/dev/null 2>&1 || sh scripts/apt-install.sh valgrind faketime
	@$(PY) -m benchmarks.against $(COMMIT) $(if $(INSTRUCTIONS),--instructions)

contexts:
	@sh scripts/setup.sh bench
	@command -v redis-server >/dev/null || sh scripts/apt-install.sh redis-server
	@$(PY) -m benchmarks.learning.contexts $(CONTEXTS)

feedback:
	@sh scripts/setup.sh bench
	@command -v redis-server >/dev/null || sh scripts/apt-install.sh redis-server
	@$(PY) -m benchmarks.learning.open_feedback $(FEEDBACK)

workers:
	@sh scripts/setup.sh bench
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@$(PY) -m benchmarks.scale.workers $(WORKERS)

peers:
	@sh scripts/setup.sh paper
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@command -v javac >/dev/null || sh scripts/apt-install.sh default-jdk-headless
	@$(PY) -m benchmarks.peers $(PEERS) $(if $(TASKS),--tasks $(TASKS)) --rounds $(or $(ROUNDS),8) $(if $(LOADS),--loads $(LOADS)) $(if $(SAVE),--save)

peers-rpc:
	@sh scripts/setup.sh paper
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@$(PY) -m benchmarks.peers.rpc $(if $(TASK),--task $(TASK)) --rounds $(or $(ROUNDS),6) $(if $(SAVE),--save)

conformance:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.peers.conformance $(if $(SAVE),--save) $(if $(CLIENTS),--clients $(CLIENTS))

RUNS ?= 400
best-arm: setup
	@$(PY) -m benchmarks.learning.best_arm $(RUNS)
	@$(PY) -m benchmarks.learning.verdicts $(RUNS)

regret:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.regret $(POLICIES)

calibration:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.calibration

batching:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.batching $(PROFILES)

pipelines:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.pipelines $(PIPELINES) $(if $(SAVE),--save)

paper:
	@sh scripts/setup.sh paper
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@sh scripts/apt-unpack.sh "$${XDG_CACHE_HOME:-$$HOME/.cache}/clipper/debian" dataset-fashion-mnist r-cran-mlbench
	@command -v g++ >/dev/null || sh scripts/apt-install.sh g++
	@command -v java >/dev/null || sh scripts/apt-install.sh default-jdk-headless
	@command -v tc >/dev/null || sh scripts/apt-install.sh iproute2
	@[ -d /usr/include/drogon ] && [ -d /usr/include/onnxruntime ] && [ -d /usr/include/jsoncpp ] || \
		sh scripts/apt-install.sh libdrogon-dev libonnxruntime-dev libjsoncpp-dev || \
		echo "Without these, figure 11 beside a server in C++ cannot be measured."
	@$(PY) -m benchmarks.paper $(FIGURES)

gpu:
	@sh scripts/setup.sh paper
	@command -v wrk >/dev/null || sh scripts/apt-install.sh wrk
	@sh scripts/apt-unpack.sh "$${XDG_CACHE_HOME:-$$HOME/.cache}/clipper/debian" dataset-fashion-mnist
	@$(PY) -m benchmarks.gpu $(FIGURES) $(if $(SHORT),--short) $(if $(PRETEND),--pretend $(PRETEND))

# Figure 6 on a Ray cluster of this machine, beside the others because it needs an environment with Ray.
paper-cluster:
	@sh scripts/setup.sh paper
	@$(PY) -m benchmarks.paper.cluster

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
