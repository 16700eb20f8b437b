# The study's notebooks as a DAG: papermill is the job, files are the edges. Jobs come from rdlib.study.jobs.
import json

from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.grid import KINDS, named
from rdlib.study.jobs import study_jobs
from rdlib.study.retrain import jobs_behind

PROFILE = config.get("profile", "params/micro.yaml")
SETTINGS = load_profile(ROOT / PROFILE)
SEEDS = config.get("seeds", SETTINGS.grid.seeds)
SEEDS = [int(seed) for seed in (json.loads(SEEDS) if isinstance(SEEDS, str) else SEEDS)]
RUNS = ROOT / SETTINGS.runs / SETTINGS.name
if config.get("exhibit"):
    JOBS = jobs_behind(config["exhibit"], PROFILE, SEEDS)
else:
    NAMES = {kind: config.get(kind, []) for kind in KINDS}
    NAMES = {kind: json.loads(names) if isinstance(names, str) else names for kind, names in NAMES.items()}
    JOBS = study_jobs(PROFILE, SEEDS, str(config.get("questions", False)) == "True", named(SETTINGS, **NAMES))


rule all:
    input:
        [job.marker(RUNS) for job in JOBS],


for job in JOBS:

    rule:
        name:
            job.name
        input:
            [before.marker(RUNS) for before in job.after],
        output:
            touch(job.marker(RUNS)),
        log:
            job.executed,
        priority: job.priority
        resources:
            gpu=job.gpus,
        params:
            command=job.command,
        shell:
            "{params.command}"
