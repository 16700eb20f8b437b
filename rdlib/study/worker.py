"""One process of a training stage: `python -m rdlib worker`, started by `rdlib.study.launch`, never by a person."""

from __future__ import annotations

import argparse
import json
import os
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.study.launch import send
from rdlib.study.stage import Stage
from rdlib.study.warm import end_after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib worker`."""
    parser.add_argument("job", help="the job as JSON")


def run(options: argparse.Namespace) -> None:
    """Do a worker's part of the job: run its stage, as far as this process goes."""
    end_after(lambda: os.read(0, 1))  # the notebook's process has ended
    if os.environ.get("RANK", "0") != "0":
        os.environ["TQDM_DISABLE"] = "1"  # one bar is enough
    job = json.loads(options.job)
    stage = Stage(**job["stage"] | {"root": Path(job["stage"]["root"])})
    try:
        stage.compute(Path(job["work"]), **{name: partial(_call, name) for name in job["hooks"]})
        return
    except UserError as error:
        send({"sentence": str(error)})
    except Exception as error:
        traceback.print_exc()
        send({"failure": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"})
    os._exit(1)  # others may wait for this one: no orderly shutdown


def _call(hook: str, value: Any) -> None:
    send({"hook": hook, "value": value})
