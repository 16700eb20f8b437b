# `make study` and `make test` are the two that matter; `make help` lists the rest. All build .venv first where it is
# missing or stale.
#
# A pin such as torch==2.13.0 names a release, not a build. On Linux, PyPI's build of torch brings CUDA
# (several GB). To have the CPU build, tell pip where it is, for example with
#   PIP_EXTRA_INDEX_URL=<an index of CPU builds> make study
# or PIP_FIND_LINKS=<a folder of wheels>; pip's own configuration files work as well.

PYTHON ?= python3
REFERENCE := params/reference.yaml
# What `make study` runs: what the profile asks for; or EXPERIMENTS, names, groups and files of experiments, with the
# profile of their own where none is given; or NAME, what one table or figure depends on.
PROFILE ?= $(if $(NAME),$(REFERENCE),$(if $(EXPERIMENTS),,params/micro.yaml))
EXPERIMENTS ?=
SEEDS ?=
NAME ?=
JOBS ?= 2
# The folder whose seeds `make release` releases; for seeds of several machines, one that they were all copied to.
RUN ?= runs/reference/results
# The parts of `make bench` (all of them), and how often each contestant runs.
BENCH_PARTS ?= a b c d e f g h i j
BENCH_ROUNDS ?= 5
# The test of `make check`; whether `make lint` fixes what it can, `make laptop` records its teacher again, and
# `make clean` removes all
KIND ?=
FIX ?=
RECORD ?=
ALL ?=
# What `make crate` describes (a run's folder, or released results), and the folder of the crate
FROM ?= figures
CRATE ?= build/crate
# Options for the command that a target runs
ARGS ?=
PYTEST_ARGS ?=
LAB_ARGS ?=
# The environment: .venv, or .venv-vllm for a profile with vLLM, as make study PROFILE=params/single_gpu.yaml VENV=.venv-vllm
VENV ?= .venv

export TOKENIZERS_PARALLELISM ?= false
export PYTHONHASHSEED ?= 0
python = $(VENV)/bin/python
rdlib = $(python) -m rdlib
# What ships with the repository needs no hub; other profiles may load models from it.
offline = HF_HUB_OFFLINE=$${HF_HUB_OFFLINE-1}
embedded = $(if $(filter params/micro.yaml params/smoke.yaml $(REFERENCE),$(PROFILE)),$(offline))
seeds = $(if $(SEEDS)$(filter-out open_% figure_open_%,$(NAME)),--seeds $(or $(SEEDS),0))
asked = $(if $(EXPERIMENTS),--experiments $(EXPERIMENTS))$(addprefix --for ,$(NAME))
redraw = $(offline) $(rdlib) publish $(REFERENCE) figures && $(MAKE) --no-print-directory figures

.DEFAULT_GOAL := help
.PHONY: help env study laptop figures verify release site docs crate lab test check lint bench findings clean

help: # the list of targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "docs/running.md explains them; $(rdlib) --help lists the commands that they run."

env: ## build .venv from the pinned versions, if it is missing or stale (VENV=.venv-vllm: the one with vLLM)
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer." >&2; exit 1; }
	@case $(VENV) in \
		.venv) $(PYTHON) scripts/bootstrap.py ;; \
		.venv-vllm) $(PYTHON) scripts/vllm_environment.py ;; \
		*) echo "VENV=$(VENV) is none of .venv and .venv-vllm, which this Makefile builds." >&2; exit 1 ;; \
	esac

# ---- running

study: env ## run a study: PROFILE=params/mine.yaml SEEDS="0 1" JOBS=2, EXPERIMENTS="study questions" or NAME=figure_5_lambda
	@$(embedded) $(rdlib) study $(addprefix --profile ,$(PROFILE)) --jobs $(JOBS) $(seeds) $(asked) $(ARGS)

laptop: env ## study two real models on two CPU cores, in hours (docs/laptop.md; RECORD=yes: record their teacher again)
	@$(if $(RECORD),$(PYTHON) scripts/llama_environment.py)
	@$(if $(RECORD),RDLIB_NUMERICS=native) $(python) scripts/laptop.py $(if $(RECORD),record $(ARGS),prepare)
	@$(if $(RECORD),true,$(laptop) --dry-run)
	@$(if $(RECORD),true,$(laptop) $(ARGS))
# In the processor's own numerics, which are several times as fast for models of this size
laptop = RDLIB_NUMERICS=native HF_HUB_OFFLINE=1 $(rdlib) study --profile params/gsm8k_laptop.yaml --jobs $(JOBS)

lab: env ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks $(LAB_ARGS)

# ---- results

figures: env ## redraw all tables and figures from the released results, without training (NAME=figure_5_lambda: only that)
	@$(offline) $(rdlib) figures figures/results figures $(addprefix --name ,$(NAME))
	@$(if $(NAME),true,$(rdlib) documents)

verify: env ## compare runs/reference with the released seeds, artifact by artifact (SEEDS=0)
	@$(rdlib) verify $(seeds) $(ARGS)

release: env ## release the seeds in RUN (runs/reference/results), keep the notebooks of one cell, and redraw
	@$(rdlib) release $(RUN) figures/results
	@$(redraw)

docs: env ## fill the numbers in README, docs and cards from result files; write codemeta.json and .zenodo.json
	@$(rdlib) memory
	@$(rdlib) documents

crate: env ## write an RO-Crate for an archive to build/crate (FROM=runs/micro CRATE=folder)
	@$(rdlib) crate $(FROM) $(CRATE)

site: env ## write build/site: report, gallery, executed notebooks, documents and API as web pages
	@$(offline) $(rdlib) site figures build/site

# ---- tests

test: lint ## check style, then run the tests (JOBS=4 processes; PYTEST_ARGS='-m "not slow"')
	@$(offline) $(python) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: env ## check style, imports between packages, and that notebooks have no outputs (FIX=yes: fix them)
	@set -- notebooks/*.ipynb; [ ! -e "$$1" ] || $(VENV)/bin/nbstripout --keep-id $(if $(FIX),,--verify) "$$@"
	@$(VENV)/bin/ruff check $(if $(FIX),--fix) .
	@$(VENV)/bin/ruff format $(if $(FIX),,--check) .
	@$(VENV)/bin/lint-imports --no-logo --no-cache

check: env ## run one of the long tests: KIND=crash, fuzz, portable, slurm, real, own, llama, vllm, sharded, gpu or crate
	@$(call one_of,check,KIND)

check.crash = $(offline) $(python) scripts/crash_test.py $(ARGS)
check.fuzz = $(offline) $(python) -m pytest -m fuzz --hypothesis-profile=fuzz $(PYTEST_ARGS)
check.portable = $(offline) $(python) scripts/portable_test.py $(ARGS)
check.slurm = $(offline) $(python) -m scripts.slurm_test $(ARGS)
check.real = $(python) scripts/laptop.py prepare && RDLIB_NUMERICS=native $(python) -m pytest tests/real -s $(PYTEST_ARGS)
check.own = $(PYTHON) scripts/vllm_environment.py && $(python) scripts/smollm2.py && \
	$(python) -m pytest tests/own -s $(PYTEST_ARGS)
check.llama = $(PYTHON) scripts/llama_environment.py && $(python) scripts/real_models.py student && \
	$(offline) $(python) -m pytest tests/llama -s $(PYTEST_ARGS)
check.vllm = $(PYTHON) scripts/vllm_environment.py && \
	RDLIB_NUMERICS=native $(offline) .venv-vllm/bin/python -m pytest tests/with_vllm $(PYTEST_ARGS)
check.gpu = $(python) scripts/gpu_check.py $(ARGS) && $(rdlib) documents
check.crate = $(PYTHON) scripts/crate_environment.py && .venv-crate/bin/python scripts/validate_crate.py $(ARGS)
check.sharded = $(PYTHON) scripts/deepspeed_environment.py && \
	$(offline) .venv-deepspeed/bin/python -m pytest tests/with_deepspeed $(PYTEST_ARGS)

bench: env ## measure speed against other software, into bench/results and docs (BENCH_PARTS="a d")
	@$(if $(filter b h,$(BENCH_PARTS)),$(PYTHON) scripts/trl_environment.py)
	@$(if $(filter j,$(BENCH_PARTS)),$(PYTHON) scripts/llama_environment.py)
	@$(if $(filter j,$(BENCH_PARTS)),$(python) scripts/real_models.py student student-checkpoint)
	@HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(python) -m bench $(BENCH_PARTS) --rounds $(BENCH_ROUNDS) $(BENCH_ARGS)
	@$(rdlib) documents

findings: ## run each script of findings/, which shows what other software does (needs a network, some minutes)
	@$(PYTHON) scripts/findings.py $(ARGS)

clean: ## remove runs/, with all that studies computed (ALL=yes: the environments and caches too)
	@[ -d runs ] || { echo "There is no runs/ to remove."; exit 0; }; \
	echo "Removing runs/ ($$(du -sh runs | cut -f1)): $$(ls runs | tr '\n' ' ')"; \
	if [ -t 0 ] && [ -z "$(YES)" ]; then \
		printf 'Go on? [y/N] '; read answer; \
		[ "$$answer" = y ] || { echo "Nothing was removed."; exit 1; }; \
	fi; \
	rm -rf runs
	@[ "$(ALL)" != yes ] || rm -rf .venv .venv-* .venv.lock .pytest_cache .ruff_cache .hypothesis .snakemake rdlib.egg-info

# What $(1).NAME holds, NAME being the value of the variable $(2); else a sentence with the names that there are
one_of = $(or $($(1).$($(2))),$(error $(2)="$($(2))": give one of $(patsubst $(1).%,%,$(filter $(1).%,$(.VARIABLES)))))

# ---- names of version 1.0, which say what replaced them

new.reference = study PROFILE=$(REFERENCE) EXPERIMENTS=\"study ablations questions\" SEEDS=0
new.trials = study EXPERIMENTS=params/trials.yaml
new.open-ends = study EXPERIMENTS=params/followups.yaml
new.rounding = study EXPERIMENTS=rounding
new.same-rate = study PROFILE=$(REFERENCE) EXPERIMENTS=same_rate
new.retrain = study NAME=$(or $(NAME),figure_5_lambda)
new.figure = figures NAME=$(or $(NAME),figure_5_lambda)
new.compare = verify
new.distclean = clean ALL=yes
new.format = lint FIX=yes
new.gpu-check = check KIND=gpu
new.laptop-teacher = laptop RECORD=yes
new.fuzz = check KIND=fuzz
new.crash-test = check KIND=crash
new.portable-test = check KIND=portable
new.slurm-test = check KIND=slurm
new.real-test = check KIND=real
new.own-test = check KIND=own
new.llama-test = check KIND=llama
new.sharded-test = check KIND=sharded
new.vllm-test = check KIND=vllm
former := $(patsubst new.%,%,$(filter new.%,$(.VARIABLES)))
.PHONY: $(former) pins
$(former): ; @echo "\`make $@\` is now \`make $(new.$@)\`." >&2; exit 2
pins: ; @echo "\`make pins\` is now \`$(python) scripts/pins.py\`." >&2; exit 2
