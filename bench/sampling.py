"""Part a: 30 responses a question from a micro student, ours against transformers.generate.

`generate` is what a user would write: a loop over the questions with num_return_sequences=30. (`top_k` is set to 0, as
its default of 50 would sample from another distribution; that saves it time.) The second rival is kinder: it batches
the questions by hand, padded on the left, so that as many rows are decoded at once as in our engine. The third is our
engine with the model in bfloat16, which says whether this machine's processor gains by that.
"""

from __future__ import annotations

import copy

import torch

from bench import micro, roofline
from bench.report import Row
from bench.timing import in_turn, seconds_of, speed_up
from rdlib.engines import generation
from rdlib.engines.transformers_engine import TransformersEngine

SAMPLES, LIMIT, ROWS = 30, 112, 512  # responses a question, tokens a response, rows decoded at once: params/micro.yaml


class Contest:
    """One student and its questions, and the ways to sample; each returns its seconds and counts its tokens."""

    def __init__(self, student: str, questions: int):
        self.model, self.tokenizer = micro.load(student)
        self.narrow = copy.deepcopy(self.model).to(torch.bfloat16)
        self.prompts = micro.gsm_prompts(self.tokenizer, questions)
        self.tokens: dict[str, int] = {}

    def ours(self, number: int) -> float:
        """Our engine."""
        return self._ours("ours", self.model, number)

    def bfloat16(self, number: int) -> float:
        """Our engine with the model in bfloat16."""
        return self._ours("bfloat16", self.narrow, number)

    def _ours(self, name: str, model: torch.nn.Module, number: int) -> float:
        engine = TransformersEngine(model, self.tokenizer, ROWS, LIMIT)
        requests = [generation.Request(prompt, SAMPLES, 1.0) for prompt in self.prompts]
        groups: list = []
        seconds = seconds_of(lambda: groups.extend(engine.generate(requests, number)))
        self.tokens[name] = sum(completion.count for group in groups for completion in group)
        return seconds

    def one_by_one(self, number: int) -> float:
        """A loop over the questions."""
        return self._generate("one_by_one", [[prompt] for prompt in self.prompts], number)

    def batched(self, number: int) -> float:
        """Questions of similar length together, as many as fill our engine's batch."""
        at_once = ROWS // SAMPLES
        ordered = sorted(self.prompts, key=len)
        groups = [ordered[start : start + at_once] for start in range(0, len(ordered), at_once)]
        return self._generate("batched", groups, number)

    def _generate(self, name: str, groups: list[list[list[int]]], number: int) -> float:
        torch.manual_seed(number)
        self.tokens[name] = 0
        return seconds_of(lambda: [self._sample(name, group) for group in groups])

    def _sample(self, name: str, group: list[list[int]]) -> list[str]:
        padded = self.tokenizer.pad({"input_ids": group}, padding_side="left", return_tensors="pt")
        output = self.model.generate(
            **padded,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=SAMPLES,
            max_new_tokens=LIMIT,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        responses = output[:, padded["input_ids"].shape[1] :]
        self.tokens[name] += int((responses != self.tokenizer.pad_token_id).sum())
        return self.tokenizer.batch_decode(responses, skip_special_tokens=True)


def run(rounds: int, quick: bool) -> list[Row]:
    """Both students against their rivals, and how near the engine comes to what the machine can do."""
    questions = 4 if quick else 68
    rows = []
    for student in ("small", "large"):
        contest = Contest(student, questions)
        ways = {name: getattr(contest, name) for name in ("ours", "one_by_one", "batched", "bfloat16")}
        for warm_up in ways.values():
            warm_up(rounds)
        found = in_turn(ways, rounds)
        rates = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in found.items()}
        shown = {name: f"{questions * SAMPLES / s:,.0f} responses/s" for name, s in rates.items()}
        lengths = ", ".join(f"{name} {n / (questions * SAMPLES):.0f}" for name, n in contest.tokens.items())
        settings = (
            f"{questions} micro-gsm questions x {SAMPLES} at temperature 1, at most {LIMIT} tokens; "
            f"mean tokens a response: {lengths}"
        )
        for rival, words, aim in (
            ("one_by_one", "generate, a question at a time", 3.0),
            ("batched", "generate, questions batched by hand", None),
            ("bfloat16", "our engine in bfloat16", None),
        ):
            value = speed_up(found["ours"], found[rival])
            name = f"sampling, {student} student, against {words}"
            rows.append(Row("a", name, *value, "x", aim, ours=shown["ours"], other=shown[rival], settings=settings))
        rows.append(roofline_row(contest, contest.tokens["ours"] / rates["ours"], student))
    return rows


def roofline_row(contest: Contest, tokens_per_second: float, student: str) -> Row:
    """How near the engine's sampling comes to the bound."""
    model, tokens = contest.model, contest.tokens["ours"]
    weights = sum(p.numel() for p in model.parameters())
    if not model.config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel()
    prompt = sum(map(len, contest.prompts)) / len(contest.prompts)
    context = prompt + tokens / (len(contest.prompts) * SAMPLES) / 2
    bound = roofline.cost(model.config, weights, context, ROWS)
    share = 100 * tokens_per_second / bound.tokens_per_second
    limit = "arithmetic" if bound.flops / roofline.peak_flops() > bound.bytes / roofline.peak_bandwidth() else "memory"
    return Row(
        "a",
        f"sampling, {student} student: share of the roofline ({limit})",
        *(share, share, share),
        "%",
        ours=f"{tokens_per_second:,.0f} tokens/s",
        other=f"{bound.tokens_per_second:,.0f} tokens/s",
        settings=(
            f"{bound.flops / 1e6:.2f} MFLOP and {bound.bytes / 1e3:.0f} kB a token; one thread: "
            f"{roofline.peak_flops() / 1e9:.0f} GFLOP/s and {roofline.peak_bandwidth() / 1e9:.1f} GB/s measured"
        ),
    )
