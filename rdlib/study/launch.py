"""Training stages in several processes: `accelerate launch` starts workers, and the notebook's process follows them.

    training: {processes: 2}                                            # a GPU each, or two processes on the CPU
    training: {processes: 8, accelerate: params/accelerate/zero2.yaml}  # DeepSpeed

Each worker (`python -m rdlib worker JOB`) runs the stage's own function; `rdlib.method.training` shares the work and
lets the first one write. What the caller sees travels through pipes: progress bars on standard error, and on standard
output events, each a line of JSON after a record separator: the rows of `on_update`, and the sentence of a failure. The
workers end with their standard input, so that none outlives the notebook.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rdlib.errors import UserError
from rdlib.paths import ROOT

CONFIGURATIONS = ROOT / "params" / "accelerate"
STAGES = ("03_sft_warmup", "05_reward_model", "06_ppo")
WORKER = ("rdlib", "worker")  # python -m
RECORD = "\x1e"  # as in RFC 7464
SECONDS_TO_STOP = 30.0
TAIL = 8000  # characters that are kept of what workers write, other than bars and events


def is_wanted(stage) -> bool:
    """Whether a stage trains in processes of its own: those of STAGES, and rft, whose trainer is that of SFT."""
    if stage.name not in STAGES and stage.method != "rft":
        return False
    settings = stage.profile.training
    return "training" in stage.spec.sections and (settings.processes > 1 or settings.accelerate is not None)


def in_processes(stage, work: Path, hooks: dict[str, Any]) -> None:
    """Run a stage's function in worker processes until they have ended.

    `hooks` are called in this process with what the workers' function gives them. UserError with the workers' own
    sentence, or with the reason for which they ended.
    """
    job = {"stage": asdict(stage) | {"root": str(stage.root)}, "work": str(work), "hooks": sorted(hooks)}
    log, said = deque(maxlen=TAIL), {}
    with start(stage, check(stage), json.dumps(job)) as process:
        reader = threading.Thread(target=show_bars, args=(process.stderr, log), daemon=True)
        reader.start()
        try:
            for event in events(process.stdout, log):
                if "hook" in event:
                    hooks[event["hook"]](event["value"])
                else:
                    said = event | said  # the first of each kind
        except BaseException:
            stop(process)
            raise
        process.wait()
        reader.join()
    if process.returncode and "sentence" in said:
        raise UserError(said["sentence"])
    if process.returncode:
        print(text := "".join(log), file=sys.stderr)
        raise UserError(
            f"{stage.label}: a training process failed ({reason(text, said.get('failure'))}): if memory ran out, "
            f"raise training.gradient_accumulation; the stage resumes from its last checkpoint."
        )


# ---- before the start


def check(stage) -> Path:
    """The accelerate configuration of a stage; UserError where this machine or the stage cannot use it."""
    import torch

    settings, gpus = stage.profile.training, torch.cuda.device_count()
    path = check_method(stage) or CONFIGURATIONS / ("ddp.yaml" if gpus else "cpu_gloo.yaml")
    there, kind = (os.cpu_count() or 1, "CPU cores") if read(path).use_cpu else (gpus, "GPUs")
    if settings.processes > there:
        raise UserError(
            f"{stage.label}: training.processes is {settings.processes}, but {path.name} has {there} {kind} here: "
            f"lower it, or name another training.accelerate."
        )
    return path


def check_method(stage) -> Path | None:
    """The accelerate configuration that a stage's profile names, if any; UserError where it is none for this stage."""
    if stage.profile.training.accelerate is None:
        return None
    path = stage.root / stage.profile.training.accelerate
    configuration = read(path)
    kind = configuration.distributed_type.value
    fsdp, zero3 = kind == "FSDP", configuration.deepspeed_config.get("zero_stage") == 3
    if kind in ("FSDP", "DEEPSPEED") and configuration.use_cpu:
        raise UserError(
            f"{path.name} says use_cpu, with which accelerate would leave {kind} out: name cpu_gloo.yaml in "
            f"training.accelerate, or take use_cpu out of it."
        )
    if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"{path.name} needs DeepSpeed, which is not installed: pip install deepspeed.")
    if stage.name == "06_ppo" and (fsdp or zero3):
        raise UserError(
            f"{stage.label}: PPO samples from its policy, which {path.name} splits over the GPUs: name ddp.yaml or "
            f"zero2.yaml in training.accelerate, with training.lora where memory is short."
        )
    if fsdp and stage.profile.training.lora is not None:
        raise UserError(
            f"{stage.label}: adapters (training.lora) are merged into the model, which {path.name} splits: name "
            f"ddp.yaml or a zero file in training.accelerate."
        )
    return path


def read(path: Path):
    """An accelerate configuration (its ClusterConfig); UserError where there is none."""
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        return load_config_from_file(str(path))
    except Exception as error:  # a missing file, bad YAML and unknown keys are of several types
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The accelerate configuration {path} cannot be read ({why}): set training.accelerate to a file of "
            f"params/accelerate."
        ) from None


# ---- the launcher, seen from the notebook


def start(stage, configuration: Path, job: str) -> subprocess.Popen:
    """The launcher's process, with pipes for its standard input, output and error."""
    settings, on_cpu = stage.profile.training, read(configuration).use_cpu
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    words += ["--num_processes", str(settings.processes), "--main_process_port", "0"]
    words += ["--multi_gpu"] if on_cpu and settings.processes > 1 else []  # else accelerate starts one process on a CPU
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if on_cpu:
        environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*words, "--module", *WORKER, job], env=environment, start_new_session=True, **pipes)


def stop(process: subprocess.Popen) -> None:
    """End the workers, by the end of their input, and the launcher."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()


def events(stream: IO[bytes], log: deque[str]) -> Iterator[dict[str, Any]]:
    """The events on a worker's standard output; other lines go to the log."""
    for line in stream:
        text = line.decode(errors="replace")
        before, record, content = text.partition(RECORD)
        log.extend(before)
        if record:
            yield json.loads(content)


def show_bars(stream: IO[bytes], log: deque[str]) -> None:
    """Pass on progress bars, which begin with a carriage return, as they are drawn; other text goes to the log."""
    decoder, in_bar = codecs.getincrementaldecoder("utf-8")("replace"), False
    for chunk in iter(lambda: stream.read1(1 << 16), b""):
        for piece in re.split(r"(?=[\r\n])", decoder.decode(chunk)):
            if piece.startswith("\n") and in_bar:
                sys.stderr.write("\n")
                in_bar, piece = False, piece[1:]
            in_bar = in_bar or piece.startswith("\r")
            sys.stderr.write(piece) if in_bar else log.extend(piece)
        sys.stderr.flush()


def reason(text: str, failure: str | None = None) -> str:
    """Why the workers ended, in a few words, from the last lines that they and the launcher wrote.

    `failure` is the first error that a worker could still name; when one is killed, the others lose their connection.
    """
    if "SIGKILL" in text or "exitcode: -9" in text:
        return "it was killed, as happens where memory runs out"
    if failure:
        return failure
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\[rank\d+\]: *)?[\w.]*(Error|Exception)\b", line)]
    return ([*lines[-1:], *errors] or ["it left no message"])[-1][:300]


def send(event: dict[str, Any]) -> None:
    """Give an event to the notebook's process."""
    sys.stdout.flush()
    sys.stdout.write(f"{RECORD}{json.dumps(event)}\n")
    sys.stdout.flush()
