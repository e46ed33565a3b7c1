# make report | test | render | lab | study | bench | reproduce | soak | readme      (make help says what each does)
PROFILE ?= quick
JOBS ?=
PARAMS ?=
MATCH ?=
DATA ?=
comma := ,
PYTHON := $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
            $(if $(shell $(p) -c 'import sys; print("ok" if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(p))))
BIN := .venv/bin
RUN := $(BIN)/python -m
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help report render test lab study bench reproduce soak readme

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1  /p' Makefile

report: .venv/installed  ## train what PROFILE (quick) lacks, execute the notebooks, build results/report/index.html
	$(RUN) lib.report --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS)) $(foreach p,$(subst $(comma) ,$(comma),$(PARAMS)),-p "$(p)")

render: PROFILE := textures
render: .venv/installed  ## draw the report from the committed results alone, in place of yours; trains nothing
	$(RUN) lib.report --profile $(PROFILE) --no-train

test: .venv/installed  ## the whole test suite
	-OMP_NUM_THREADS=1 $(RUN) lib.studies --profile smoke --jobs 2
	OMP_NUM_THREADS=1 $(RUN) pytest -q -n 2 --dist worksteal

lab: .venv/installed  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

study: .venv/installed  ## train what PROFILE lacks, without notebooks; JOBS=2 side by side, DATA=name on other images, DRY_RUN=1 only lists it
	$(RUN) lib.studies --profile $(PROFILE) $(if $(DATA),--data "$(DATA)") $(if $(JOBS),--jobs $(JOBS)) $(if $(DRY_RUN),--dry-run)

bench: .venv/installed  ## the speed of training here, against its limit and against lightly (installed for it), into results/mine/bench
	$(RUN) pip install -q -e ".[bench]"
	$(RUN) lib.bench

reproduce: PROFILE := textures
reproduce: .venv/installed  ## train a committed PROFILE anew elsewhere and print both numbers side by side; MATCH=text for some runs
	$(RUN) lib.reproduce --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS)) $(if $(MATCH),--match $(MATCH))

soak: .venv/installed  ## kill a training again and again and compare its bytes with one left alone; four processes at one grid
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(RUN) soak

readme: .venv/installed  ## refresh the READMEs, results/figure.svg and claims.csv from the committed runs
	$(RUN) lib.report --readme

.venv/installed: requirements.txt pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3))
	@echo "installing the pins of requirements.txt into .venv (some minutes, 5 GB)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(RUN) pip install -r requirements.txt
	$(RUN) pip install -qq --no-deps -e .
	@touch $@
