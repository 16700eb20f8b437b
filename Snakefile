# A study's notebooks as a DAG: papermill is the job, files are the edges. `rdlib.study.workflow` writes the plan.
import json
from pathlib import Path

JOBS = json.loads(Path(config["plan"]).read_text(encoding="utf-8"))


rule all:
    input:
        [job["marker"] for job in JOBS],


for job in JOBS:

    rule:
        name:
            job["name"]
        input:
            job["after"],
        output:
            touch(job["marker"]),
        log:
            job["executed"],
        priority: job["priority"]
        resources:
            gpu=job["gpus"],
        params:
            command=job["command"],
        shell:
            "{params.command}"
