"""Part f: our vLLM engine against vLLM itself, on the same prompts and with the same vLLM object.

vLLM is asked twice: with the seed a request that our engine gives (what is left is the engine's own overhead: seeds,
settings, texts), and as a user would without a wish for reproducible samples. Both give texts. Run by the Python of
.venv-vllm, where `make check KIND=vllm` has built it.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench import micro
from bench.report import Row, Skipped
from bench.timing import in_turn, middle, seconds_of
from rdlib.paths import ROOT

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SAMPLES, LIMIT = 30, 112
STUDENT = "small"
RIVALS = {
    "vllm": "vLLM with the same seeds",
    "unseeded": "vLLM without seeds",
}


def run(rounds: int, quick: bool) -> list[Row]:
    """Both comparisons; raises Skipped where .venv-vllm is not built."""
    if not PYTHON.exists():
        raise Skipped("There is no .venv-vllm: `python3 scripts/vllm_environment.py` builds it (4 GB).")
    questions = 2 if quick else 24
    words = [str(PYTHON), "-m", "bench.vllm_overhead", str(rounds), str(questions)]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    responses = questions * SAMPLES
    shown = {name: f"{responses / middle(times)[0]:,.0f} responses/s" for name, times in found["seconds"].items()}
    settings = (
        f"{STUDENT} student, {questions} micro-gsm questions x {SAMPLES} at temperature 1, at most {LIMIT} tokens; "
        f"vLLM {found['vllm']} on a CPU"
    )
    rows = []
    for rival, words in RIVALS.items():
        shares = [100 * b / a for a, b in zip(found["seconds"]["ours"], found["seconds"][rival], strict=True)]
        name, aim = f"vLLM engine, share of the speed of {words}", 95.0 if rival == "vllm" else None
        rows.append(Row("f", name, *middle(shares), "%", aim, False, shown["ours"], shown[rival], settings))
    return rows


def measure(rounds: int, questions: int) -> dict:
    """In .venv-vllm: seconds of every contestant in every round."""
    from rdlib.engines.generation import Request
    from rdlib.engines.vllm_engine import VllmEngine
    from rdlib.settings import Model

    engine = VllmEngine(Model(model=micro.student(STUDENT), engine="vllm"), LIMIT)
    import vllm

    prompts = micro.gsm_prompts(engine.tokenizer, questions)
    requests = [Request(prompt, SAMPLES, 1.0) for prompt in prompts]

    def raw(seeds: list[int | None]) -> list[str]:
        asked = [vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        settings = [
            vllm.SamplingParams(
                n=SAMPLES, temperature=1.0, max_tokens=LIMIT, seed=seed, stop_token_ids=engine.end_tokens
            )
            for seed in seeds
        ]
        return [s.text for output in engine.llm.generate(asked, settings, use_tqdm=False) for s in output.outputs]

    def ours(number: int) -> float:
        return seconds_of(lambda: engine.generate(requests, number))

    def seeded(number: int) -> float:
        seeds = [1000 * number + index for index in range(questions)]
        return seconds_of(lambda: raw(seeds))

    def unseeded(number: int) -> float:
        return seconds_of(lambda: raw([None] * questions))

    contestants = {"ours": ours, "vllm": seeded, "unseeded": unseeded}
    for warm_up in contestants.values():
        warm_up(rounds)
    return {"seconds": in_turn(contestants, rounds), "vllm": vllm.__version__}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
