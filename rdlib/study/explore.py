"""One question put to the models of a cell: teacher, students before and after PPO, and every lambda's reward model.

    explorer = Explorer(stage)      # stage 06_ppo of the cell; what it rests on may not be there yet
    asked = explorer.ask("mia has 6 books . mia adopts 6 books . how many books does mia have ?")

Everything is sampled anew, with seeds that the question decides, so the same question gets the same answers. What
`rdlib.study.explore_tables` makes of them, `rdlib.study.explore_page` shows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import pandas as pd
import torch

from rdlib import engines
from rdlib.engines import generation, models
from rdlib.engines.generation import Engine
from rdlib.errors import UserError
from rdlib.evidence import shown
from rdlib.method import scoring, teacher
from rdlib.method.reward import scale_of
from rdlib.settings import Dataset, Model
from rdlib.study.explore_tables import TEACHER, Asked
from rdlib.study.stage import Stage
from rdlib.tasks import answers, data, prompts
from rdlib.tasks.questions import LETTERS, PERTURBED, Question

BASE, BEFORE, AFTER = "base student", "before PPO", "after PPO"
QUICK = "params/smoke.yaml"  # the profile whose study takes minutes
RESPONSE = ["confidence", "temperature", "sample", "text", "finished", "answer"]  # columns of a model's responses
OFFERED = {"validation": 60, "test": 60, PERTURBED: 30}  # questions of each split to choose from


# ---- questions as one types them


def as_typed(settings: Dataset, question: Question) -> str:
    """A question with its options as one text, which asks the same when it is typed."""
    if settings.answer in prompts.INSTRUCTIONS:
        return prompts.listed(question.question, question.options)
    return prompts.micro_question(question.question, question.options).removeprefix("Q: ").removesuffix(" A:")


def in_micro_words(text: str) -> str:
    """A text as the micro world writes it: "Mia has 6 books." becomes "mia has 6 books ."; options keep capitals."""
    spaced = re.sub(r"([.?,:])(?=\s|$)", r" \1 ", text.lower())
    return " ".join(re.sub(rf"\(([{LETTERS.lower()}])\)", lambda match: match.group().upper(), spaced).split())


def require_known_words(text: str, tokenizer, examples: Iterable[str]) -> None:
    """UserError for words that a tokenizer cannot read, or that stand for one of its special tokens.

    A word of the `examples`, texts that it can read, is offered in place of the first of them.
    """
    special = set(tokenizer.all_special_ids)
    words = list(dict.fromkeys(text.split()))
    unknown = [w for w in words if special & set(tokenizer(w, add_special_tokens=False)["input_ids"])]
    if not unknown:
        return
    readable = sorted({word for example in examples for word in example.split()})
    close = difflib.get_close_matches(unknown[0][:30], readable, n=1, cutoff=0.7)
    named = ", ".join(repr(shown.visible(word[:30])) for word in unknown[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    hint = f"did you mean {close[0]!r}?" if close else "take words from the questions of the list."
    raise UserError(f"The models do not know {named}{more}: {hint}")


# ---- models


class Explorer:
    """Asks the models of a cell; `stage` is its 06_ppo. Models that are not there yet are left out, as `missing` says.

    `samples`: how many responses each student gives.
    """

    def __init__(self, stage: Stage, samples: int = 6):
        self.stage, self.samples = stage, samples
        self._engines: dict[str, Engine] = {}
        self._asked: dict[str, Asked] = {}

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Questions that no model was trained on, by their text as one types it: a few of each split."""
        settings, found = self.stage.dataset_settings, {}
        loaded = data.load(self.stage.dataset, settings, self.stage.root)
        for split, count in OFFERED.items():
            of_split = [question for question in loaded if question.split == split]
            found |= {as_typed(settings, question): question for question in of_split[:count]}
        return found

    @cached_property
    def tokenizer(self):
        """The base student's tokenizer."""
        return models.load_tokenizer(self.sources[BASE])

    @cached_property
    def sources(self) -> dict[str, Model]:
        """The models that are there, by name: teacher, base student, and those of the finished stages."""
        stage, profile = self.stage, self.stage.profile
        found = {TEACHER: profile.model_of(stage.teacher), BASE: profile.model_of(stage.student)}
        made = {BEFORE: stage.inputs["warmup"], AFTER: stage}
        found |= {name: Model(model=str(one.verified() / "model")) for name, one in made.items() if one.done}
        own = {name: engines.own(stage, model) for name, model in found.items() if name != TEACHER}
        return {name: models.resolve(model, stage.root) for name, model in (found | own).items()}

    @cached_property
    def reward_models(self) -> dict[float, Stage]:
        """The stage of the reward model of each lambda of the grid, and of the cell's own."""
        own = self.stage.inputs["reward_model"]
        stages = [own, *(own.with_overrides({"reward_model.lam": lam}) for lam in own.profile.grid.lam)]
        return {stage.profile.reward_model.lam: stage for stage in sorted(stages, key=_lambda)}

    @cached_property
    def reward_scale(self) -> float:
        """What Eq. 7 divides the scores of the cell's reward model by; 1 where there is none yet."""
        own = self.stage.inputs["reward_model"]
        return scale_of(own.table("scores"), self.stage.profile.reward) if own.done else 1.0

    @cached_property
    def _scorers(self) -> dict[float, torch.nn.Module]:
        pad = self.tokenizer.pad_token_id
        done = {lam: stage for lam, stage in self.reward_models.items() if stage.done}
        return {lam: models.load_scorer(stage.verified() / "model", pad) for lam, stage in done.items()}

    def missing(self, *names: str) -> str | None:
        """One sentence on which of the students named are not there and what makes them; None where all are."""
        absent = [name for name in names if name not in self.sources]
        return self._missing(f"student {' and '.join(absent)}", "`make study") if absent else None

    def missing_lambdas(self) -> str | None:
        """One sentence on which lambda's reward models are not there and what makes them; None where all are."""
        absent = [f"{lam:g}" for lam in self.reward_models if lam not in self._scorers]
        made_by = "notebooks/08_ablation_lambda.ipynb with these parameters or `make study"
        return self._missing(f"reward model of lambda {', '.join(absent)}", made_by) if absent else None

    def _missing(self, what: str, made_by: str) -> str:
        """What is not there and the command that makes it."""
        profile = self.stage.profile_path
        quick = f"; `make study PROFILE={QUICK}` makes a small one in minutes, for profile = {QUICK!r}"
        return (
            f"There is no {what} of these settings and this code yet: {made_by} PROFILE={profile}` makes it"
            f"{quick if profile != QUICK else ''}."
        )

    def read(self, text: str) -> str:
        """A typed question as the models read it; UserError where they cannot: empty, too long, or unknown words."""
        settings = self.stage.dataset_settings
        text = in_micro_words(text) if settings.source.startswith("micro") else text.strip()
        if not text:
            raise UserError("The question is empty: type one, or choose one of the list.")
        limit = getattr(models.load_config(self.sources[BASE]), "max_position_embeddings", None)
        length = len(prompts.encode(self.tokenizer, prompts.zero_shot(settings, text)))
        if limit is not None and length + settings.max_tokens > limit:
            room = limit - settings.max_tokens
            raise UserError(f"The question has {length:,} tokens, and there is room for {room:,}: shorten it.")
        require_known_words(text, self.tokenizer, self.questions)
        return text

    def ask(self, text: str) -> Asked:
        """Have every model answer a question and every reward model score the answers; UserError as `read` has it."""
        text = self.read(text)
        if text not in self._asked:
            prompt = prompts.zero_shot(self.stage.dataset_settings, text)
            responses = pd.concat([self._sample(name, prompt) for name in self.sources], ignore_index=True)
            known = self.questions.get(text)
            self._asked[text] = Asked(text, known and known.answer, responses, self._score(prompt, responses))
        return self._asked[text]

    def _sample(self, name: str, prompt: prompts.Prompt) -> pd.DataFrame:
        """A model's responses to a prompt: the teacher's at every temperature, a student's at its own."""
        if name not in self._engines:
            self._engines[name] = engines.open_engine(self.stage, self.sources[name])
        engine, profile = self._engines[name], self.stage.profile
        if name == TEACHER:
            plan = teacher.sampling_plan(pd.DataFrame({"id": [""], "split": [""]}), profile.teacher_sampling)
        else:
            temperature = float(profile.student_sampling.temperature)
            plan = pd.DataFrame({"id": "", "confidence": "", "temperature": [temperature], "n": self.samples})
        encoded = engine.encode(prompt)
        requests = [generation.Request(encoded, row.n, row.temperature) for row in plan.itertuples()]
        seed = generation.derive_seed("explore", self.stage.seed, name, prompt.plain)
        table = _table(plan, engine.generate(requests, seed), self.stage.answer_kind)
        if name == TEACHER:
            table = teacher.repeat_greedy(table, profile.teacher_sampling.samples_per_temperature)
        return table[RESPONSE].assign(model=name)

    def _score(self, prompt: prompts.Prompt, responses: pd.DataFrame) -> pd.DataFrame:
        """r_phi of every response, a column a lambda."""
        encode = prompts.Encoder({"": prompt}, self.tokenizer)
        sequences = [encode("", row.text, row.finished) for row in responses.itertuples()]
        pad = self.tokenizer.pad_token_id
        queries = [""] * len(sequences)
        scores = {lam: scoring.score(model, sequences, pad, queries).numpy() for lam, model in self._scorers.items()}
        return pd.DataFrame(scores, index=responses.index)


def _lambda(stage: Stage) -> float:
    return stage.profile.reward_model.lam


def _table(plan: pd.DataFrame, groups: Sequence[Sequence[generation.Completion]], kind: str) -> pd.DataFrame:
    """Completions of the requests of a plan as a table, with their extracted answers."""
    rows = [
        (row.id, row.confidence, row.temperature, sample, one.text, one.finished, answers.extract(one.text, kind))
        for row, group in zip(plan.itertuples(), groups, strict=True)
        for sample, one in enumerate(group)
    ]
    return pd.DataFrame(rows, columns=["id", *RESPONSE]).astype({"answer": "str"})
