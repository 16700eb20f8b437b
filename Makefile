# Two commands: `make study` and `make test`. Both build .venv first where it is missing or stale.
#
# A pin such as torch==2.13.0 names a release, not a build. On Linux, PyPI's build of torch brings CUDA
# (several GB). To have the CPU build, tell pip where it is, for example with
#   PIP_EXTRA_INDEX_URL=<an index of CPU builds> make study
# or PIP_FIND_LINKS=<a folder of wheels>; pip's own configuration files work as well.

PYTHON  ?= python3
PROFILE ?= params/micro.yaml
JOBS    ?= 2
# The evidence: its profile, and the seeds of `make reference`, which can be run at different times.
REFERENCE := params/reference.yaml
SEEDS   ?= 0 1 2 3 4
# The folder whose seeds `make release` releases; for seeds of several machines, one that they were all copied to.
RUN     ?= runs/reference/results
# The parts of `make bench` (all of them), and how often each contestant runs.
BENCH_PARTS  ?= a b c d e f g h i j
BENCH_ROUNDS ?= 5
# Extra words for the command behind a target: make study ARGS=..., make test PYTEST_ARGS=..., make lab LAB_ARGS=...
ARGS ?=
PYTEST_ARGS ?=
LAB_ARGS ?=
TRIALS ?= params/trials/settings.yaml

# The environment: .venv, or .venv-vllm for a profile with vLLM, as make study PROFILE=params/single_gpu.yaml VENV=.venv-vllm
VENV ?= .venv
BIN := $(VENV)/bin

export TOKENIZERS_PARALLELISM ?= false
export PYTHONHASHSEED ?= 0
# What ships with the repository needs no hub; other profiles may load models from it.
EMBEDDED := params/micro.yaml params/smoke.yaml $(REFERENCE)
offline = HF_HUB_OFFLINE=$${HF_HUB_OFFLINE-1}

# In the processor's own numerics, which are several times as fast for models of this size
laptop = RDLIB_NUMERICS=native HF_HUB_OFFLINE=1 $(BIN)/python -m rdlib study --profile params/gsm8k_laptop.yaml --jobs $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help env study laptop laptop-teacher reference trials open-ends compare rounding same-rate test crash-test portable-test slurm-test fuzz real-test own-test llama-test sharded-test vllm-test
.PHONY: bench gpu-check lint format docs figures figure retrain release site lab pins clean distclean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: ## build .venv from the pins, if it is missing, unfinished or stale (VENV=.venv-vllm: the one with vLLM)
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer." >&2; exit 1; }
	@case $(VENV) in \
		.venv) $(PYTHON) scripts/bootstrap.py ;; \
		.venv-vllm) $(PYTHON) scripts/vllm_environment.py ;; \
		*) echo "VENV=$(VENV) is none of .venv and .venv-vllm, which this Makefile builds." >&2; exit 1 ;; \
	esac

study: env ## run the whole study: every notebook, table and figure (PROFILE=params/micro.yaml JOBS=2)
	@$(if $(filter $(EMBEDDED),$(PROFILE)),$(offline)) $(BIN)/python -m rdlib study --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

laptop: env ## real models and real questions from the recorded teacher on; prints the hours first, resumes where it stopped (docs/laptop.md)
	@$(BIN)/python scripts/laptop.py prepare
	@$(laptop) --dry-run
	@$(laptop) $(ARGS)

laptop-teacher: env ## record the teacher of `make laptop` again, on a llama.cpp server (hours; resumes where it stopped)
	@$(PYTHON) scripts/llama_environment.py
	@RDLIB_NUMERICS=native $(BIN)/python scripts/laptop.py record $(ARGS)

reference: env ## the evidence: study and reviewers' questions of SEEDS, trained until patience ends, then release (SEEDS="0 1 2 3 4")
	@for seed in $(SEEDS); do \
		$(offline) $(BIN)/python -m rdlib study --profile $(REFERENCE) --jobs $(JOBS) --seeds $$seed --questions $(ARGS) || exit 1; \
	done
	@$(MAKE) --no-print-directory release

trials: env ## the trials by which the settings of params/reference.yaml were chosen, into figures/trials (hours)
	@$(offline) $(BIN)/python -m rdlib trials $(TRIALS) --jobs $(JOBS) $(ARGS)

open-ends: env ## the follow-up experiments, on seeds that are not released, into figures/trials (hours; ARGS="--groups reward_model")
	@$(offline) $(BIN)/python -m rdlib open-ends --jobs $(JOBS) $(ARGS)

compare: env ## compare what is in runs/reference with the released seeds, artifact by artifact (ARGS="--seeds 0")
	@$(BIN)/python -m rdlib verify $(ARGS)

rounding: env ## the released SEEDS again in torch's own numerics: the effect of rounding (SEEDS="0 1 2 3 4"; hours)
	@RDLIB_NUMERICS=native $(offline) $(BIN)/python -m rdlib rounding --seeds $(SEEDS) --jobs $(JOBS) $(ARGS)
	@$(offline) $(BIN)/python -m rdlib publish $(REFERENCE) figures
	@$(MAKE) --no-print-directory figures

same-rate: env ## SFT of the released SEEDS with the warm-up's learning rate, in every cell (SEEDS="0 1 2 3 4"; an hour)
	@$(offline) $(BIN)/python -m rdlib same-rate --seeds $(SEEDS) --jobs $(JOBS) $(ARGS)
	@$(offline) $(BIN)/python -m rdlib publish $(REFERENCE) figures
	@$(MAKE) --no-print-directory figures

test: lint ## check style, then run the tests
	@$(offline) $(BIN)/python -m pytest $(PYTEST_ARGS)

crash-test: env ## kill the smoke study at 30 random moments and compare what it ends with (about 20 minutes)
	@$(offline) $(BIN)/python scripts/crash_test.py $(ARGS)

portable-test: env ## the same numbers on emulated Intel and AMD processors, seen by a short chain (qemu-user; 10 minutes to an hour)
	@$(offline) $(BIN)/python scripts/portable_test.py $(ARGS)

slurm-test: env ## the smoke study on a SLURM cluster on this machine, and faults (root and apt; ARGS="refusals faults")
	@$(offline) $(BIN)/python -m scripts.slurm_test $(ARGS)

real-test: env ## the first twenty questions of the laptop study through every stage (10 to 20 minutes, 8 GB)
	@$(BIN)/python scripts/laptop.py prepare
	@RDLIB_NUMERICS=native $(BIN)/python -m pytest tests/real -s $(PYTEST_ARGS)

own-test: env ## own questions, a vLLM server as teacher, killed half way, to the report (40 minutes on busy cores, 8 GB; 5 GB of disk and .venv-vllm)
	@$(PYTHON) scripts/vllm_environment.py
	@$(BIN)/python scripts/smollm2.py
	@$(BIN)/python -m pytest tests/own -s $(PYTEST_ARGS)

llama-test: env ## a real llama.cpp server as teacher through stages 00 to 02, killed and started again (2 to 5 minutes; 1 GB of disk)
	@$(PYTHON) scripts/llama_environment.py
	@$(BIN)/python scripts/real_models.py student
	@$(offline) $(BIN)/python -m pytest tests/llama -s $(PYTEST_ARGS)

vllm-test: ## run the tests that need vLLM, in .venv-vllm, which it builds first (4 GB; minutes)
	@$(PYTHON) scripts/vllm_environment.py
	@RDLIB_NUMERICS=native $(offline) .venv-vllm/bin/python -m pytest tests/with_vllm $(PYTEST_ARGS)

sharded-test: ## train by ZeRO-2, ZeRO-3 and FSDP in two CPU processes, in .venv-deepspeed (2 GB; ten minutes)
	@$(PYTHON) scripts/deepspeed_environment.py
	@$(offline) .venv-deepspeed/bin/python -m pytest tests/with_deepspeed $(PYTEST_ARGS)

fuzz: env ## hostile input by the hundred thousand: answers, profiles, questions, recordings, servers, parameters
	@PYTHONPATH=. $(offline) $(BIN)/python tests/fuzz.py $(ARGS)

bench: env ## measure against other software, and how it grows; into bench/results and docs (BENCH_PARTS="a d")
	@$(if $(filter b h,$(BENCH_PARTS)),$(PYTHON) scripts/trl_environment.py)
	@$(if $(filter j,$(BENCH_PARTS)),$(PYTHON) scripts/llama_environment.py)
	@$(if $(filter j,$(BENCH_PARTS)),$(BIN)/python scripts/real_models.py student student-checkpoint)
	@HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/python -m bench $(BENCH_PARTS) --rounds $(BENCH_ROUNDS) $(BENCH_ARGS)
	@$(BIN)/python -m rdlib documents

gpu-check: env ## measure memory and speed on a GPU against the dry run's account, without downloads (8 minutes; ARGS="--minutes 5")
	@$(BIN)/python scripts/gpu_check.py $(ARGS)
	@$(BIN)/python -m rdlib documents

lint: env ## check style, and that notebooks are without outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@set -- notebooks/*.ipynb; [ ! -e "$$1" ] || $(BIN)/nbstripout --keep-id --verify "$$@"

format: env ## fix style and strip notebooks of outputs
	@set -- notebooks/*.ipynb; [ ! -e "$$1" ] || $(BIN)/nbstripout --keep-id "$$@"
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: env ## redraw every table and figure from the released results, without training
	@$(offline) $(BIN)/python -m rdlib figures figures/results figures
	@$(BIN)/python -m rdlib documents

figure: env ## redraw one table or figure from the released results, in seconds (NAME=figure_5_lambda)
	@$(offline) $(BIN)/python -m rdlib figures figures/results figures --name "$(NAME)"

retrain: SEEDS = 0
retrain: PROFILE = $(REFERENCE)
retrain: env ## retrain what one table or figure depends on, after a time estimate (NAME=figure_5_lambda SEEDS="0" ARGS=--dry-run)
	@$(if $(filter $(EMBEDDED),$(PROFILE)),$(offline)) $(BIN)/python -m rdlib study --profile $(PROFILE) --jobs $(JOBS) --seeds $(SEEDS) --for "$(NAME)" $(ARGS)

release: env ## make the seeds in RUN (runs/reference/results) the released ones, execute and keep notebooks of one cell, and redraw
	@$(BIN)/python -m rdlib release $(RUN) figures/results
	@$(offline) $(BIN)/python -m rdlib publish $(REFERENCE) figures
	@$(MAKE) --no-print-directory figures

docs: env ## fill README and docs from result files, and draw the packages
	@$(BIN)/python -m rdlib memory
	@$(BIN)/python -m rdlib documents
	@$(BIN)/python -m rdlib architecture

site: env ## build/site: report, gallery, executed notebooks, documents and API as pages to open without network
	@$(offline) $(BIN)/python -m rdlib site figures build/site

lab: env ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks $(LAB_ARGS)

pins: env ## write what is installed to constraints.txt and environment.yml
	@$(BIN)/python scripts/pins.py

clean: ## remove runs/ (all that studies made); keeps .venv and figures/
	@[ -d runs ] || { echo "There is no runs/ to remove."; exit 0; }; \
	echo "Removing runs/ ($$(du -sh runs | cut -f1)): $$(ls runs | tr '\n' ' ')"; \
	if [ -t 0 ] && [ -z "$(YES)" ]; then \
		printf 'Go on? [y/N] '; read answer; \
		[ "$$answer" = y ] || { echo "Nothing was removed."; exit 1; }; \
	fi; \
	rm -rf runs

distclean: clean ## remove .venv and caches too
	rm -rf .venv .venv-vllm .venv-trl .venv-deepspeed .venv-llama .venv.lock .pytest_cache .ruff_cache .hypothesis .snakemake rdlib.egg-info
