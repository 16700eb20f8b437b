"""The same numbers on every processor, seen: `make check KIND=portable`.

It runs a short chain here and on emulated processors.

    python scripts/portable_test.py             # here, and by qemu-user as other processors; compares all hashes
    python scripts/portable_test.py --hashes    # the chain once, in this process: its hashes as JSON
    python scripts/portable_test.py --write     # makes tests/golden/portable.json again, after the code was changed

The chain: operations one by one, three steps of training, part by part, and the stages of one cell on a tiny profile
(sampling, voting, SFT, reward model, PPO, evaluation, the baselines). What differs first names what is to blame.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rdlib import artifacts, numerics  # noqa: E402 (before torch, as everywhere)
from rdlib.study.specification import BASELINES  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "portable.json"
COMMAND = "python scripts/portable_test.py --write"
QEMU = "qemu-x86_64"
# Debian's qemu-user 7.2 has no AVX-512: Skylake-Server is one without it
PROCESSORS = ("Haswell", "Skylake-Server", "EPYC-v1", "EPYC-Rome")
HERE = "this processor"
OWN_CHOICE = (HERE, "Haswell", "EPYC-Rome")  # where torch's own choice is looked at too, to see that it does differ
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small"}
STAGES = (
    ("01_teacher_responses", None),
    ("02_pseudo_labels", None),
    ("03_sft_warmup", "ours_wo_r"),
    ("04_student_responses", "ours"),
    ("05_reward_model", "ours"),
    ("06_ppo", "ours"),
    ("07_evaluate", "ours"),
    *(("13_baseline", method) for method in BASELINES),
)

Hashes = dict[str, str]


# ---- the chain


def hashes() -> Hashes:
    """The hashes of the whole chain, in the order of their making."""
    return operations() | training_steps() | stages()


def digest(tensor: Any) -> str:
    """Hash of a tensor's bytes."""
    return artifacts.content_hash(tensor.detach().contiguous().numpy().tobytes().hex())[:16]


def operations() -> Hashes:
    """What the stages compute with, one operation at a time, on numbers that no library has drawn."""
    import torch
    import torch.nn.functional as F

    from rdlib import roots

    numerics.settle()
    roots.install()
    n = torch.arange(12_000, dtype=torch.int64)
    x = ((n * 7919 % 12_007) - 6000).float().view(120, 100) / 512  # from -11.7 to 11.7, exact in float32
    p, q = x.abs() + 2**-9, (x[:, :64] / 4).reshape(5, 24, 2, 32).transpose(1, 2)
    a, b = x[:, :96], x[:64, :96].contiguous()
    found = {
        "product": a @ b.t(),
        "product of one row": a[:1] @ b.t(),
        "product over the rows": a.t() @ x,
        "product over a thousand rows": x.reshape(1000, 12).t() @ x.reshape(1000, 12).tanh(),
        "layer": F.linear(a, b, x[0, :64]),
        "products of a batch": q @ q.transpose(-1, -2),
        "attention": F.scaled_dot_product_attention(q, q, q, is_causal=True),
        "exp": x.exp(),
        "log": p.log(),
        "sigmoid": x.sigmoid(),
        "silu": F.silu(x),
        "log sigmoid": F.logsigmoid(x),
        "entropy": torch.special.entr(x.softmax(-1)),
        "cos": x.cos(),
        "sin": x.sin(),
        "power": 10000.0 ** (x / 16),
        "root": p.sqrt(),
        "one over the root": p.rsqrt(),
        "softmax": x.softmax(-1),
        "log softmax": x.log_softmax(-1),
        "log-sum-exp": x.logsumexp(-1),
        "cumulative sum": x.softmax(-1).cumsum(-1),
        "sum": x.sum(),
        "sums of rows": x.sum(-1),
        "sums of columns": x.sum(0),
        "mean of squares": x.pow(2).mean(-1),
        "standard deviation": x.std(-1),
        "norm": torch.linalg.vector_norm(x),
        "cross-entropy": F.cross_entropy(x, torch.arange(120) % 100),
        "order": p.flatten().argsort(stable=True),
        "uniform numbers": torch.rand(1000, generator=torch.Generator().manual_seed(0)),
        "normal numbers": torch.randn(1000, generator=torch.Generator().manual_seed(0)),
        "tokens": torch.multinomial(x.softmax(-1), 1, generator=torch.Generator().manual_seed(0)),
    }
    # rare cases too: of the functions that torch leaves to MKL's vector library, roots differed in one of five numbers
    many = (torch.arange(2**21) - 2**20).float() / 2**14  # from -64 to 64
    found |= {
        "exp of many numbers": many.exp(),
        "log of many numbers": (many + 64 + 2**-14).log(),
        "sin of many numbers": many.sin(),
        "cos of many numbers": many.cos(),
        "root of many numbers": many.abs().sqrt(),
    }
    return {f"operations/{name}": digest(tensor) for name, tensor in found.items()}


def training_steps() -> Hashes:
    """Three steps of training the smallest student on made-up tokens, part by part."""
    import torch

    from rdlib.engines import models

    model = models.load_causal_lm(ROOT / "models" / "small")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = 5 + torch.arange(8 * 40).view(8, 40) * 7919 % (model.config.vocab_size - 5)
    found = {}
    for step in range(1, 4):
        output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        weights = torch.cat([p.flatten() for p in model.parameters()])
        parts = {"logits": output.logits, "loss": output.loss, "gradients": gradients, "norm": norm, "weights": weights}
        found |= {f"step {step}/{name}": digest(tensor) for name, tensor in parts.items()}
    return found


def stages() -> Hashes:
    """Every file that the stages of one cell write, on a tiny profile; what they print goes to standard error."""
    from rdlib.study.stage import Stage

    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        root = Path(folder)
        artifacts.write_json(root / "tiny.yaml", tiny_profile())  # JSON is YAML
        (root / "models").symlink_to(ROOT / "models", target_is_directory=True)
        for name, method in STAGES:
            last = name if name == "13_baseline" else "07_evaluate"
            stage = Stage(last, "tiny.yaml", **CELL, method=method, root=root).at(name)
            files = artifacts.read_manifest(stage.run_with_inputs().folder)["files"]
            place = f"{name} of {method}" if name == "13_baseline" else name
            found |= {f"{place}/{file}": content[:16] for file, content in files.items()}
    return found


def tiny_profile() -> dict[str, Any]:
    """params/smoke.yaml, cut down to seconds."""
    import yaml

    content = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    content["name"] = "tiny"
    if numerics.caveat():
        content["numerics"] = numerics.NATIVE
    content["datasets"]["gsm"] |= {"train": 8, "validation": 4, "test": 4, "perturbed_test": 2}
    sampling = {"high_temperatures": [0.0, 0.3], "low_temperatures": [1.0], "samples_per_temperature": 3}
    content["teacher_sampling"] = sampling
    content["sft"] |= {"batch_size": 4, "responses_per_question": 2}
    content["reward_model"] |= {"batch_size": 2}
    content["ppo"] |= {"episodes_per_update": 8, "minibatch_size": 4}
    # the first step of a training is of rate 0, so what the second makes of the weights shows in the third's loss
    content["baselines"] |= {"grpo_steps": 4, "grpo_prompts_per_step": 2, "grpo_samples_per_prompt": 4}
    content["baselines"] |= {"distillation_steps": 4, "distillation_prompts_per_step": 4}
    return content


# ---- the golden hashes


def first_difference(golden: Hashes, found: Hashes) -> str | None:
    """The first entry of the chain that differs or is missing; None where all are equal."""
    names = [*golden, *(name for name in found if name not in golden)]
    return next((name for name in names if golden.get(name) != found.get(name)), None)


def advice(first: str, made: dict[str, Any], here: dict[str, Any]) -> str:
    """What a difference means and what to do about it."""
    version = {name: text.partition("+")[0] for name, text in made["packages"].items()}
    others = [f"{name} {text}" for name, text in here["packages"].items() if text.partition("+")[0] != version[name]]
    packages = f" The packages are others here: {', '.join(others)}." if others else ""
    remake = "" if first.startswith("operations/") else f" If the code was changed to give other numbers: `{COMMAND}`."
    return (
        f"{first} is the first of the chain that differs between {here['processor']} (here) and {made['processor']}, "
        f"where tests/golden/portable.json was made.{packages}{remake}"
    )


def write_golden() -> None:
    """Make the golden hashes again, here; SystemExit where this machine is not in the mode."""
    if caveat := numerics.caveat():
        sys.exit(f"{caveat} Golden hashes are made in the mode.")
    found = json.loads(run([sys.executable]))
    record = {"command": COMMAND, "made_by": found["made_by"], "hashes": found["hashes"]}
    artifacts.write_bytes(GOLDEN, (json.dumps(record, indent=1) + "\n").encode())  # in the order of the chain
    print(f"{len(found['hashes'])} hashes written to {GOLDEN.relative_to(ROOT)}")


# ---- this processor and others


def run(interpreter: list[str], mode: str = numerics.PORTABLE) -> str:
    """What `--hashes` prints in a new process; RuntimeError with the end of its errors where it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in numerics.MODE}
    environment = kept | {numerics.SWITCH: mode, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run([*interpreter, __file__, "--hashes"], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def compare(processors: list[str], jobs: int) -> int:
    """Run the chain here and on emulated processors, print what differs first on each; 1 where anything does."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["hashes"]
    if shutil.which(QEMU) is None:
        print(f"There is no {QEMU}: only this processor is looked at (apt-get install qemu-user brings it).")
        processors = []
    runs = [(name, numerics.PORTABLE) for name in (HERE, *processors)]
    runs += [(name, numerics.NATIVE) for name in (HERE, *processors) if name in OWN_CHOICE]
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda one: outcome(golden, *one), runs))
    return int(not all(results))


def outcome(golden: Hashes, processor: str, mode: str) -> bool:
    """Print how one run compares; False where it should be equal to the golden hashes and is not."""
    interpreter = [sys.executable] if processor == HERE else [QEMU, "-cpu", processor, sys.executable]
    clock = time.time()
    found = json.loads(run(interpreter, mode))["hashes"]
    differing = sum(golden.get(name) != value for name, value in found.items())
    first = first_difference(golden, found)
    text = "equal" if first is None else f"{differing} differ, the first is {first}"
    print(f"{processor:15} {mode:9} {len(found)} hashes: {text} ({time.time() - clock:.0f} s)", flush=True)
    return first is None or mode == numerics.NATIVE


def main(argv: list[str] | None = None) -> int:
    """Command line: --hashes, --write, --on, --jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", action="store_true", help="the chain once, in this process")
    parser.add_argument("--write", action="store_true", help="make the golden hashes again")
    parser.add_argument("--on", nargs="*", default=PROCESSORS, metavar="CPU", help=f"names that {QEMU} -cpu knows")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    options = parser.parse_args(argv)
    if options.hashes:
        found = hashes()
        print(json.dumps({"made_by": artifacts.environment(), "hashes": found}))
        return 0
    if options.write:
        write_golden()
        return 0
    return compare(options.on, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
