# The study's notebooks as a DAG: papermill is the job, files are the edges. Jobs come from rdlib.study.jobs.
import json

from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import exhibit_runs
from rdlib.study.jobs import study_jobs

PROFILE = config.get("profile", "params/micro.yaml")
SETTINGS = load_profile(ROOT / PROFILE)
RUNS = ROOT / SETTINGS.runs / SETTINGS.name


def asked(kind):
    """What the command was given of a kind, a list; Snakemake may have read the JSON already."""
    given = config.get(kind)
    return json.loads(given) if isinstance(given, str) else given


SEEDS = [int(seed) for seed in asked("seeds") or SETTINGS.grid.seeds]
if config.get("exhibit"):
    JOBS = exhibit_runs.jobs_of(config["exhibit"], PROFILE, SEEDS)
else:
    JOBS = study_jobs(PROFILE, SEEDS, asked("experiments"), asked("methods") or ())


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
