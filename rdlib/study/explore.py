"""One question put to the models of a cell: teacher, students before and after PPO, and every lambda's reward model.

    asked = Explorer(stage).ask("mia has 6 books . mia adopts 6 books . how many books does mia have ?")
    vote = vote_on(asked.teacher, threshold=0.7)                # its label, and the verdict in words
    judged(asked.students(0.5), vote.label, profile.reward)     # agreement with a*(x), and the reward of Eq. 7
    orderings(scores_by_lambda(asked, vote.label), [0.0, 0.5])  # what Figure 5 measures, on this question alone

`stage` is 06_ppo of the cell; its inputs need not exist yet. Everything is sampled with seeds that depend on the
question, so the same question gets the same answers. `rdlib.study.explore_page` shows the tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch

from rdlib import engines
from rdlib.engines import generation, models
from rdlib.engines.generation import Engine
from rdlib.errors import UserError, hint
from rdlib.evidence import shown
from rdlib.method import metrics, reward_model, scoring, teacher, voting
from rdlib.method.reward import reward, scale_of
from rdlib.settings import Dataset, Model, Reward
from rdlib.study.stage import Stage
from rdlib.tasks import answers, data, prompts
from rdlib.tasks.questions import LETTERS, PERTURBED, Question

TEACHER, BASE, BEFORE, AFTER = "teacher", "base student", "before PPO", "after PPO"  # names of the models
NO_ANSWER, OTHERS = "(no answer)", "(others)"
QUICK = "params/smoke.yaml"  # the profile whose study takes minutes
RESPONSE = ["confidence", "temperature", "sample", "text", "finished", "answer"]  # columns of a model's responses
OFFERED = {"validation": 60, "test": 60, PERTURBED: 30}  # questions of each split to choose from
KINDS = {  # what Eq. 4 and 5 call a response, by whether it is the teacher's and agrees with a*(x)
    (True, True): reward_model.KINDS[reward_model.TEACHER_POSITIVE],
    (False, True): reward_model.KINDS[reward_model.STUDENT_POSITIVE],
    (False, False): reward_model.KINDS[reward_model.STUDENT_NEGATIVE],
}


@dataclass(frozen=True)
class Asked:
    """All that was sampled for one question.

    `responses`: a row a sample with model (teacher, or one of the students), confidence, temperature, sample, text,
    finished and answer. `scores`: r_phi of the same rows, a column for each lambda that there is a reward model of.
    """

    text: str
    gold: str | None
    responses: pd.DataFrame
    scores: pd.DataFrame

    @property
    def teacher(self) -> pd.DataFrame:
        """The teacher's responses."""
        return self.responses[self.responses["model"] == TEACHER]

    def students(self, lam: float) -> pd.DataFrame:
        """The students' responses, with the scores of the reward model of a lambda, NaN where there is none."""
        score = self.scores[lam] if lam in self.scores else float("nan")
        return self.responses.assign(score=score)[self.responses["model"] != TEACHER]


# ---- the vote


@dataclass(frozen=True)
class Vote:
    """The majority vote of section 3.1 on one question; `label` is a*(x), None where x goes to Q_fail."""

    label: str | None
    threshold: float
    words: str


def answers_in(responses: pd.DataFrame) -> list[str | None]:
    """The answers of a table of responses, None where one has none."""
    return [None if pd.isna(answer) else answer for answer in responses["answer"]]


def vote_on(responses: pd.DataFrame, threshold: float) -> Vote:
    """The vote over the high-confidence ones among the teacher's responses to one question."""
    votes = answers_in(responses[responses["confidence"] == "high"])
    leading, share = voting.majority_vote(votes, 0.0)
    label, _ = voting.majority_vote(votes, threshold)
    if leading is None:
        words = f"None of the {len(votes)} high-confidence responses has an answer: Q_fail, no pseudo-label."
        return Vote(label, threshold, words)
    passed, verdict = ("not ", "Q_fail, no pseudo-label") if label is None else ("", f"a*(x) = {label}")
    shares = f"{votes.count(leading)} of the {len(votes)} high-confidence votes ({share:.0%})"
    return Vote(label, threshold, f"{leading} has {shares}, {passed}above the threshold of {threshold:.0%}: {verdict}.")


def answer_counts(responses: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """How often each answer came at each (confidence, temperature); the `most` frequent answers, then all others."""
    found = responses["answer"].fillna(NO_ANSWER).rename("answer")
    counts = pd.crosstab([responses["confidence"], responses["temperature"]], found)
    order = sorted(counts, key=lambda answer: (answer == NO_ANSWER, -counts[answer].sum(), answer))
    table = counts[order[:most]]
    return table.assign(**{OTHERS: counts[order[most:]].sum(axis=1)}) if order[most:] else table


def distinct(responses: pd.DataFrame) -> pd.DataFrame:
    """Equal texts as one row: answer, times, temperatures, text; by how frequent answer and text are."""
    table = responses.assign(answer=responses["answer"].fillna(NO_ANSWER))
    groups = table.groupby(["answer", "text"])["temperature"]
    rows = groups.agg(times="size", temperatures=lambda t: ", ".join(f"{v:g}" for v in sorted(set(t)))).reset_index()
    rows["of_answer"] = rows.groupby("answer")["times"].transform("sum")
    rows = rows.sort_values(["of_answer", "answer", "times", "text"], ascending=[False, True, False, True])
    return rows[["answer", "times", "temperatures", "text"]].reset_index(drop=True)


# ---- rewards and scores


def judged(responses: pd.DataFrame, label: str | None, settings: Reward, scale: float = 1.0) -> pd.DataFrame:
    """Responses with `agrees` (with a*(x) = `label`; None in Q_fail) and `reward` (Eq. 7), by model, best first.

    `scale`: what Eq. 7 divides a score by.
    """
    found, scores = answers_in(responses), torch.tensor(responses["score"].to_numpy(dtype=float))
    agrees = [None if label is None else answers.same(one, label) for one in found]
    table = responses.assign(agrees=pd.Series(agrees, index=responses.index, dtype=object))
    table["reward"] = reward(scores, found, [label] * len(found), settings, scale).numpy()
    table["place"] = pd.factorize(responses["model"])[0]
    order = {"place": True, "reward": False, "score": False, "text": True}
    return table.sort_values(list(order), ascending=list(order.values()), kind="stable").drop(columns="place")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a model of a table by `judged`: samples, agree (share), mean score and mean reward."""
    columns = {"samples": ("text", "size"), "agree": ("agrees", "mean")}
    columns |= {f"mean {name}": (name, "mean") for name in ("score", "reward")}
    return table.astype({"agrees": float}).groupby("model", sort=False).agg(**columns).reset_index()


def scores_by_lambda(asked: Asked, label: str | None) -> pd.DataFrame:
    """The responses that Eq. 5 compares (all of the students' in Q_fail), each text of a kind once.

    Columns kind, model, answer, text and a score for each lambda; by kind, then the best of the first lambda first.
    A teacher's wrong response has no kind and is left out, as in the reward model's training.
    """
    of_teacher, lambdas = asked.responses["model"] == TEACHER, list(asked.scores)
    pairs = zip(of_teacher, answers_in(asked.responses), strict=True)
    kinds = [None if label is None else KINDS.get((one, answers.same(answer, label))) for one, answer in pairs]
    table = asked.responses.join(asked.scores).assign(kind=pd.Series(kinds, asked.responses.index, dtype=object))
    kept = ~of_teacher if label is None else table["kind"].notna()
    table = table[kept].drop_duplicates(["kind", "model", "text"])
    order = ["kind", *lambdas[:1]]
    table = table.sort_values(order, ascending=[True, False][: len(order)], kind="stable", ignore_index=True)
    return table[["kind", "model", "answer", "text", *lambdas]]


def orderings(table: pd.DataFrame, lambdas: Sequence[float]) -> pd.DataFrame:
    """Share of pairs that each lambda's reward model orders as Eq. 5 wants it, a row a lambda: pos_neg and pos_pos."""
    scored = [table[["kind"]].assign(score=table[lam]) for lam in lambdas]
    shares = {name: [metrics.comparison_auc(scores, name) for scores in scored] for name in metrics.COMPARISONS}
    return pd.DataFrame(shares, index=pd.Index(lambdas, name="lambda"))


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
    special, words = set(tokenizer.all_special_ids), dict.fromkeys(text.split())
    unknown = [w[:30] for w in words if special & set(tokenizer(w, add_special_tokens=False)["input_ids"])]
    if unknown:
        readable = sorted({word for example in examples for word in example.split()})
        named = ", ".join(repr(shown.visible(word)) for word in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        other = hint(unknown[0], readable, "take words from the questions of the list.", cutoff=0.7)
        raise UserError(f"The models do not know {named}{more}: {other}")


# ---- models


class Explorer:
    """Asks the models of a cell; `stage` is its 06_ppo. Models that are not there yet are left out, as `missing` says.

    `samples`: how many responses each student gives.
    """

    def __init__(self, stage: Stage, samples: int = 6):
        self.stage, self.samples = stage, samples
        self._engines: dict[str, Engine] = {}

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
        stage = self.stage
        made = {BEFORE: stage.inputs["warmup"], AFTER: stage}
        found = {BASE: stage.profile.model_of(stage.student)}
        found |= {name: Model(model=str(one.verified() / "model")) for name, one in made.items() if one.done}
        found = {name: engines.own(stage, model) for name, model in found.items()}
        found = {TEACHER: stage.profile.model_of(stage.teacher), **found}
        return {name: models.resolve(model, stage.root) for name, model in found.items()}

    @cached_property
    def reward_models(self) -> dict[float, Stage]:
        """The stage of the reward model of each lambda of the grid, and of the cell's own."""
        own = self.stage.inputs["reward_model"]
        stages = [own, *(own.with_overrides({"reward_model.lam": lam}) for lam in own.profile.grid.lam)]
        return dict(sorted({stage.profile.reward_model.lam: stage for stage in stages}.items()))

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

    def missing(self, *names: str) -> str:
        """One sentence on which of the students named are not there and what makes them; empty where all are."""
        return self._missing("student", " and ".join(n for n in names if n not in self.sources), "")

    def missing_lambdas(self) -> str:
        """One sentence on which lambda's reward models are not there and what makes them; empty where all are."""
        absent = ", ".join(f"{lam:g}" for lam in self.reward_models if lam not in self._scorers)
        notebook = "notebooks/08_ablation_lambda.ipynb with these parameters or "
        return self._missing("reward model of lambda", absent, notebook)

    def _missing(self, what: str, names: str, notebook: str) -> str:
        """What is not there and the command that makes it."""
        profile = self.stage.profile_path
        quick = f"; `make study PROFILE={QUICK}` makes a small one in minutes, for profile = {QUICK!r}"
        made_by = f"{notebook}`make study PROFILE={profile}` makes it{quick if profile != QUICK else ''}."
        return f"There is no {what} {names} of these settings and this code yet: {made_by}" if names else ""

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
        prompt = prompts.zero_shot(self.stage.dataset_settings, text)
        responses = pd.concat([self._sample(name, prompt) for name in self.sources], ignore_index=True)
        known = self.questions.get(text)
        return Asked(text, known and known.answer, responses, self._score(prompt, responses))

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
        encoded, kind = engine.encode(prompt), self.stage.answer_kind
        requests = [generation.Request(encoded, row.n, row.temperature) for row in plan.itertuples()]
        groups = engine.generate(requests, generation.derive_seed("explore", self.stage.seed, name, prompt.plain))
        rows = [
            (row.id, row.confidence, row.temperature, sample, one.text, one.finished, answers.extract(one.text, kind))
            for row, group in zip(plan.itertuples(), groups, strict=True)
            for sample, one in enumerate(group)
        ]
        table = pd.DataFrame(rows, columns=["id", *RESPONSE]).astype({"answer": "str"})
        if name == TEACHER:
            table = teacher.repeat_greedy(table, profile.teacher_sampling.samples_per_temperature)
        return table[RESPONSE].assign(model=name)

    def _score(self, prompt: prompts.Prompt, responses: pd.DataFrame) -> pd.DataFrame:
        """r_phi of every response, a column a lambda."""
        encode = prompts.Encoder({"": prompt}, self.tokenizer)
        sequences = [encode("", row.text, row.finished) for row in responses.itertuples()]
        pad, queries = self.tokenizer.pad_token_id, [""] * len(sequences)
        scores = {lam: scoring.score(model, sequences, pad, queries).numpy() for lam, model in self._scorers.items()}
        return pd.DataFrame(scores, index=responses.index)
