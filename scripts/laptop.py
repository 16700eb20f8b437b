"""What the laptop study needs beside the repository, and the recording of its teacher.

    python scripts/laptop.py prepare            # the student, and GSM8K from the hub or the folder in GSM8K=...
    python scripts/laptop.py record             # the teacher answers behind a llama.cpp server, into figures/laptop

`prepare` checks disk and processor first. `record` resumes where it was stopped: every answer is kept as it comes, in
responses/gsm8k_laptop_teacher.sqlite. The recording has no question text, only hashes of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import real_models
import wheels

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = wheels.HOME / "gsm8k"
SPLITS = {"train": 7473, "test": 1319}
PROFILE = "params/gsm8k_laptop_teacher.yaml"
RECORDING = ROOT / "figures/laptop/teacher_responses.parquet"
CELL = {"dataset": "gsm", "teacher": "teacher"}
SERVER = (str(ROOT / ".venv-llama/bin/python"), str(ROOT / "scripts/llama_server.py"))
SLOTS, CONTEXT, LONGEST_START = 32, 768, 300  # of a server; tokens of a slot; seconds
# One cache of all slots: with one each, a step reads the weights once for every run of neighbouring busy slots.
SIZE = ("--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT), "--kv-unified", "--threads", "1")


def prepare() -> None:
    """Put the student and the questions into .real."""
    questions()
    real_models.checkpoint()


def questions() -> None:
    """Write train.jsonl and test.jsonl of GSM8K to .real/gsm8k: of the folder that GSM8K names, else from the hub."""
    if all((QUESTIONS / f"{split}.jsonl").is_file() for split in SPLITS):
        return
    folder = os.environ.get("GSM8K")
    partial = QUESTIONS.with_name("gsm8k.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for split, count in SPLITS.items():
        rows = _of_folder(Path(folder), split) if folder else _of_hub(split)
        if len(rows) != count:
            sys.exit(f"GSM8K's {split} has {len(rows)} questions instead of {count}: give the original files.")
        lines = (json.dumps({"question": q, "answer": a}, ensure_ascii=False) + "\n" for q, a in rows)
        (partial / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    partial.rename(QUESTIONS)


def _of_folder(folder: Path, split: str) -> list[tuple[str, str]]:
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        sys.exit(f"GSM8K={folder} has no {split}.jsonl: name the folder of openai/grade-school-math's files.")
    with path.open(encoding="utf-8") as lines:
        return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def _of_hub(split: str) -> list[tuple[str, str]]:
    from rdlib.errors import UserError
    from rdlib.tasks import sources

    try:
        return [(row["question"], row["answer"]) for row in sources.GSM8K.records(split)]
    except UserError as error:
        sys.exit(f"{error} Here: GSM8K=FOLDER make laptop, a folder with train.jsonl and test.jsonl.")


def record(server: str | None) -> None:
    """Ask the teacher every question of the study and write the recording; what was asked before is not asked again."""
    from rdlib.study.stage import make_stage

    if server is None:
        require_avx2()
    real_models.fetch(real_models.TEACHER)
    questions()
    names = (("00_data", {}), ("00_gold", {}), ("01_teacher_responses", {}), ("07_evaluate", {"method": "teacher"}))
    stages = []
    for name, more in names:
        axes = {axis: value for axis, value in CELL.items() if axis == "dataset" or name[:2] in ("01", "07")}
        stages.append(make_stage(name, PROFILE, **axes, **more))
    if not all(stage.done for stage in stages):
        with serving(server):
            for stage in stages:
                run_stage(stage)
    write_recording(ROOT / "responses/gsm8k_laptop_teacher.sqlite", RECORDING)
    write_provenance(stages[2:], RECORDING.with_suffix(".json"))


def write_provenance(stages: list, path: Path) -> None:
    """Say how the recording was made: command, profile, seed, model, and of each stage times, commit and machine."""
    from rdlib import artifacts

    kept = ("key", "started", "ended", "seconds", "environment", "settings")
    manifests = {stage.name: artifacts.read_manifest(stage.folder) for stage in stages}
    found = {
        "command": "make laptop RECORD=yes",
        "profile": PROFILE,
        "seed": stages[0].seed,
        "model": {"file": real_models.TEACHER.path.name, "sha256": real_models.TEACHER.sha256},
        "server": ["llama-server", *SIZE],
        "stages": {name: {field: manifest[field] for field in kept} for name, manifest in manifests.items()},
    }
    artifacts.write_json(path, found)


def run_stage(stage) -> None:
    """Execute the notebook of a stage that is not done yet; its own message ends the program where it fails."""
    if not stage.done:
        words = shlex.split(stage.command)
        environment = {"PYTHONHASHSEED": "0", "OPENAI_API_KEY": "none"} | os.environ
        kept = wheels.HOME / f"{stage.name}.ipynb"
        words = [{"python": sys.executable, "out.ipynb": str(kept)}.get(word, word) for word in words]
        if subprocess.run(words, cwd=ROOT, env=environment).returncode:
            sys.exit(1)


def require_avx2() -> None:
    """One sentence where llama.cpp's wheel could not run on this processor."""
    from rdlib import numerics

    if "avx2" not in numerics.processor()["instruction_sets"]:
        sys.exit("PyPI's llama.cpp needs a processor with AVX2: begin at the vote, from the recording (make laptop).")


@contextlib.contextmanager
def serving(server: str | None) -> Iterator[None]:
    """The teacher behind a llama.cpp server at the profile's address, for as long as the block lasts.

    `server` is a llama-server of your own; None: that of `.venv-llama`.
    """
    if server is None and not Path(SERVER[0]).is_file():
        sys.exit("There is no .venv-llama: run python3 scripts/llama_environment.py first.")
    start = [server, "--model"] if server else [*SERVER]
    command = [*start, str(real_models.TEACHER.path), "--alias", "qwen2.5-coder-1.5b", "--port", "8080", *SIZE]
    with (wheels.HOME / "llama.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.time() + LONGEST_START
        while not _answers(8080):
            if process.poll() is not None or time.time() > deadline:
                sys.exit(f"The llama.cpp server did not start: see {wheels.HOME / 'llama.log'}.")
            time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    return False


def load_teacher():
    """The teacher as its profile has it."""
    from rdlib.profile import load_profile

    return load_profile(ROOT / PROFILE).model_of("teacher")


def write_recording(store: Path, target: Path) -> None:
    """The answers of a store as a recording: ids, hashes of questions, temperature, sample, text, tokens, finished."""
    import pandas as pd

    from rdlib import artifacts
    from rdlib.engines.asking import Reply
    from rdlib.engines.replay import hash_of, plain_question
    from rdlib.engines.server_answers import completion_of
    from rdlib.engines.store import REPLY

    columns = ("id", "question", "temperature", "sample", *REPLY)
    query = f"SELECT {', '.join(columns)} FROM responses JOIN asked ON digest = asked WHERE kind = 'answer'"
    teacher, rows = load_teacher(), []
    with contextlib.closing(sqlite3.connect(store)) as connection:
        for key, question, temperature, sample, *values in connection.execute(query):
            one = completion_of(Reply(*values), teacher, (), ())
            rows.append((key, question, temperature, sample, one.text, one.count, one.finished))
    names = ["id", "question", "temperature", "sample", "text", "tokens", "finished"]
    table = pd.DataFrame(rows, columns=names)
    hashes = [hash_of(plain_question(question)) for question in table.pop("question")]
    table.insert(1, "question_sha256", hashes)
    table = table.sort_values(["id", "temperature", "sample"], ignore_index=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_parquet(target, table)
    print(f"{len(table)} responses to {table['id'].nunique()} questions are in {target.relative_to(ROOT)}.")


def main() -> None:
    """Carry out one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["prepare", "record"])
    parser.add_argument("--server", help="a llama-server compiled for this processor, in place of .venv-llama's")
    options = parser.parse_args()
    prepare() if options.what == "prepare" else record(options.server)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
