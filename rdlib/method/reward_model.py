"""Stage 5: the reward model, a linear head on the warmed-up student (Eq. 4-6).

A query with at least one wrong student answer gives equal numbers of student positives, student
negatives and teacher positives, drawn uniformly. One training example is a query with its responses;
the preference terms run over all pairs within the queries of a batch, each pair counting the same.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from rdlib import artifacts
from rdlib.engines import models, padding
from rdlib.errors import UserError
from rdlib.method import metrics, one_base, scoring, trainers, training, voting
from rdlib.method.policy import policy_source
from rdlib.method.ppo_schedule import seed_of
from rdlib.settings import Model, RewardModel
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_questions

STUDENT_POSITIVE, STUDENT_NEGATIVE, TEACHER_POSITIVE, TEACHER_NEGATIVE = range(4)
KINDS = ("student_positive", "student_negative", "teacher_positive", "teacher_negative")
POSITIVE_KINDS = (STUDENT_POSITIVE, TEACHER_POSITIVE)
# Better over worse: the two of Eq. 5, and the one that source "teacher", which has no student responses, has instead
PREFERENCES = (
    (STUDENT_POSITIVE, STUDENT_NEGATIVE),
    (TEACHER_POSITIVE, STUDENT_POSITIVE),
    (TEACHER_POSITIVE, TEACHER_NEGATIVE),
)
VALIDATION_SAMPLES = 3  # of a kind; the same whatever is trained on, so that AUCs of different models compare

IGNORED = -1  # kind of a response that only fills up a process's share of a batch


def pairs_of(kinds: torch.Tensor, queries: torch.Tensor) -> list[torch.Tensor]:
    """For each of the PREFERENCES which pairs [N, N] of (better, worse) responses of one query there are."""
    same_query = queries[:, None] == queries[None, :]
    return [same_query & (kinds[:, None] == better) & (kinds[None, :] == worse) for better, worse in PREFERENCES]


def count_terms(kinds: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """What the means of Eq. 4 and 5 are over, [1 + preferences]: responses, and pairs of each preference."""
    return torch.stack([(kinds != IGNORED).sum(), *(pairs.sum() for pairs in pairs_of(kinds, queries))])


def classification_loss(
    scores: torch.Tensor, kinds: torch.Tensor, responses: torch.Tensor | None = None
) -> torch.Tensor:
    """Eq. 4: binary cross-entropy of sigmoid(r), positives to 1 and negatives to 0. `scores` and `kinds` are [N].

    A mean; for a part of a batch, its share of the mean over the batch's number of `responses`.
    """
    kept = kinds != IGNORED
    target = torch.isin(kinds[kept], torch.tensor(POSITIVE_KINDS, device=kinds.device)).to(scores.dtype)
    if responses is None:
        return F.binary_cross_entropy_with_logits(scores[kept], target)
    return F.binary_cross_entropy_with_logits(scores[kept], target, reduction="sum") / responses


def preference_loss(
    scores: torch.Tensor, kinds: torch.Tensor, queries: torch.Tensor, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Eq. 5: student positive over student negative, teacher positive over student positive. All [N].

    Of teacher responses alone (Table 4) it is teacher positive over teacher negative.
    Each term is the mean over all pairs of the batch, each within a query, so a query weighs by its pairs (for a part
    of a batch, its share of the mean over the batch's `counts` of pairs); a term without a pair is zero.
    """
    difference = scores[:, None] - scores[None, :]
    total = scores.sum() * 0.0
    for i, pairs in enumerate(pairs_of(kinds, queries)):
        if pairs.any():
            terms = F.logsigmoid(difference[pairs])
            total = total - (terms.mean() if counts is None else terms.sum() / counts[i])
    return total


def reward_model_loss(
    scores: torch.Tensor,
    kinds: torch.Tensor,
    queries: torch.Tensor,
    lam: float,
    form: str,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 6, convex: lam L_cls + (1 - lam) L_pref; additive (the other reading): L_cls + lam L_pref.

    The losses of the parts of a batch, given the `count_terms` of the whole, add up to the loss of the whole.
    """
    classification = classification_loss(scores, kinds, None if counts is None else counts[0])
    preference = preference_loss(scores, kinds, queries, None if counts is None else counts[1:])
    if form == "convex":
        return lam * classification + (1 - lam) * preference
    return classification + lam * preference


@dataclass(frozen=True)
class Response:
    """One response of a query, by kind."""

    kind: int
    text: str
    finished: bool


def counts_by_kind(settings: RewardModel, rng: random.Random) -> dict[int, int]:
    """How many responses of each kind a query gives; teacher_share divides the 2n positives.

    A share that is no whole number of them is rounded up or down at random, so that it holds on average.
    """
    n = settings.samples_per_kind
    if settings.source == "teacher":
        return {TEACHER_POSITIVE: n, TEACHER_NEGATIVE: n}
    exact = 2 * n * settings.teacher_share
    teacher = math.floor(exact + 1e-9)
    if exact - teacher > 1e-9:
        teacher += rng.random() < exact - teacher
    teacher = min(max(teacher, 1), 2 * n - 1)
    return {STUDENT_POSITIVE: 2 * n - teacher, STUDENT_NEGATIVE: n, TEACHER_POSITIVE: teacher}


def sample_query(pools: dict[int, list[Response]], wanted: dict[int, int], rng: random.Random) -> list[Response]:
    """Uniform draws of each kind without replacement, scaled down together where a kind is short.

    Empty when the query has none of one kind.
    """
    scale = min(len(pools[kind]) / count for kind, count in wanted.items())
    if scale == 0:
        return []
    counts = {kind: max(1, int(count * min(1.0, scale) + 1e-9)) for kind, count in wanted.items()}
    return [response for kind, count in counts.items() for response in rng.sample(pools[kind], count)]


def build_examples(
    student_responses: pd.DataFrame, teacher_responses: pd.DataFrame, settings: RewardModel, seed: int
) -> tuple[dict[str, list[Response]], int]:
    """Responses of each usable query, and how many queries were skipped for want of one kind.

    Both tables have id, text, finished and positive. A query is used iff one student answer differs from
    the pseudo-label (for source "teacher": iff one teacher answer does). Draw "texts" takes equal responses of a query
    once.
    """
    pools: dict[str, dict[int, list[Response]]] = {}
    for table, kinds in (
        (student_responses, (STUDENT_NEGATIVE, STUDENT_POSITIVE)),
        (teacher_responses, (TEACHER_NEGATIVE, TEACHER_POSITIVE)),
    ):
        if settings.draw == "texts":
            table = table.drop_duplicates(["id", "text", "finished"])
        for row in table.sort_values("id", kind="stable").itertuples():
            pool = pools.setdefault(row.id, {kind: [] for kind in range(len(KINDS))})
            pool[kinds[row.positive]].append(Response(kinds[row.positive], row.text, row.finished))
    failing = STUDENT_NEGATIVE if settings.source == "student" else TEACHER_NEGATIVE
    rng = random.Random(seed)
    failed = {key: pool for key, pool in sorted(pools.items()) if pool[failing]}
    examples = {key: sample_query(pool, counts_by_kind(settings, rng), rng) for key, pool in failed.items()}
    usable = {key: responses for key, responses in examples.items() if responses}
    return usable, len(failed) - len(usable)


def collate(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """A batch of queries flattened to N responses, each with its kind, its query and its sequence among the D to read.

    Of a query's equal sequences one is read: samples of a short answer are often the same text.
    """
    sequences, sequences_of, readers = [], [], []
    for number, example in enumerate(examples):
        firsts, place = scoring.distinct(example["sequences"])
        sequences_of += [len(sequences) + i for i in place]
        sequences += [example["sequences"][i] for i in firsts]
        readers += [number] * len(firsts)
    ids, mask = scoring.pad_right(sequences, pad)
    return {
        "input_ids": ids,  # [D, T]
        "attention_mask": mask,
        "sequence_queries": torch.tensor(readers),  # [D]
        "sequences": torch.tensor(sequences_of),  # [N]
        "kinds": torch.tensor([kind for example in examples for kind in example["kinds"]]),
        "queries": torch.tensor([i for i, example in enumerate(examples) for _ in example["kinds"]]),
    }


class RewardModelTrainer(trainers.FiniteSteps, trainers.GlobalBatches, trainers.PlainCheckpoints):
    """Trainer with the loss of Eq. 6; it evaluates by the AUCs of Table 3 on the validation queries."""

    blank = {"sequences": [[0]], "kinds": [IGNORED]}

    def __init__(self, *args, settings: RewardModel, validation: pd.DataFrame, **kwargs):
        """`validation`: a row a validation response with its query (id), kind_id and token ids (sequence)."""
        super().__init__(*args, **kwargs)
        self.settings, self.validation = settings, validation
        self.model_accepts_loss_kwargs = True  # `compute_loss` gets the counts of the whole batch

    def _get_num_items_in_batch(self, batch_samples, device):
        if self.accelerator.num_processes * self.args.gradient_accumulation_steps == 1:
            return None
        counts = sum(count_terms(batch["kinds"], batch["queries"]) for batch in batch_samples)
        return self.accelerator.reduce(counts.to(device)) if len(batch_samples) else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Eq. 6 over a batch of queries, or a part's share of it times the processes whose gradients are averaged."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        if training.keeps_in_step(self.accelerator):
            scores = scoring.score_whole(model, ids, mask, len(ids))
        else:
            scores = scoring.score_batch(model, ids, mask, inputs["sequence_queries"])
        scores = scores[inputs["sequences"]]
        settings, terms = self.settings, (inputs["kinds"], inputs["queries"])
        loss = reward_model_loss(scores, *terms, settings.lam, settings.form, num_items_in_batch)
        loss = loss * self.accelerator.num_processes
        return (loss, scores) if return_outputs else loss

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Pos/Neg and Pos/Pos AUC on the validation queries."""
        scores = self.scores_of_validation()
        values = {f"eval_{name}": value for name, value in aucs(scores, self.validation["kind_id"].to_numpy()).items()}
        values["epoch"] = self.state.epoch
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    def scores_of_validation(self) -> np.ndarray:
        """r_phi [N] of the validation responses, equal ones' once: a tie stays one. Processes share them."""
        pad, accelerator = self.processing_class.pad_token_id, self.accelerator
        firsts, place = scoring.distinct(self.validation["sequence"])
        own = self.validation.iloc[training.share(firsts, accelerator)]
        queries = None if training.splits_weights(accelerator) else own["id"].tolist()  # forward passes in step
        scores = scoring.score(self.model, own["sequence"].tolist(), pad, queries).tolist()
        return np.asarray(training.gather(scores, len(firsts), accelerator), dtype=np.float32)[place]


def aucs(scores: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """Table 3: student positives against student negatives, teacher positives against student positives."""
    by_kind = [scores[kinds == kind] for kind in range(len(KINDS))]
    return {
        "pos_neg_auc": metrics.auc(by_kind[STUDENT_POSITIVE], by_kind[STUDENT_NEGATIVE]),
        "pos_pos_auc": metrics.auc(by_kind[TEACHER_POSITIVE], by_kind[STUDENT_POSITIVE]),
    }


def configuration(stage, work: Path) -> TrainingArguments:
    """The training arguments of the stage's profile."""
    settings = stage.profile.reward_model
    return TrainingArguments(
        num_train_epochs=settings.epochs,
        **training.batch_arguments(stage.profile.training, settings.batch_size),
        learning_rate=settings.learning_rate,
        eval_on_start=training.last_whole_checkpoint(work / training.CHECKPOINTS) is None,  # not again on resuming
        remove_unused_columns=False,
        **training.stopping_arguments(stage.profile.stopping, "eval_pos_neg_auc"),
        **training.common_arguments(stage, work),
        train_sampling_strategy="random",
    )


def read_responses(stage) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Labelled (student, teacher) responses of the train and the validation questions."""
    students = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet")
    teachers = voting.propagate(artifacts.read_parquet(stage.input("teacher") / "responses.parquet"), labels)
    return {
        split: tuple(table[table["split"] == split] for table in (students, teachers))
        for split in ("train", "validation")
    }


@dataclass(frozen=True)
class Member:
    """A trained reward model: its trainer, history, and the scores [N] of the validation responses."""

    trainer: RewardModelTrainer
    history: pd.DataFrame
    scores: np.ndarray
    skipped: int

    @property
    def tokens_trained(self) -> float:
        """Tokens of the sequences that its training saw."""
        tokens = sum(len(ids) for row in self.trainer.train_dataset for ids in row["sequences"])
        return tokens * self.trainer.state.epoch


def run(stage, work: Path) -> None:
    """Stage 05_reward_model: write the model, history.parquet, scores.parquet and summary.json.

    Of several members the first lies in `model`, the others in folders of their own (`scoring.load`); the scores are
    their means, the history and how the training ended are the first's.
    """
    settings = stage.profile.reward_model
    source = initial_model(stage)
    tokenizer = models.load_tokenizer(source)
    questions = read_questions(stage.input("data"), "train", "validation")
    encode = prompts.Encoder(prompts.of_questions(stage.dataset_settings, questions), tokenizer)
    splits = read_responses(stage)
    table = validation_table(*splits["validation"], settings, stage.seed)
    if table.empty:  # every AUC would be NaN, which is never the best
        raise UserError(
            f"{stage.label}: no validation query has all kinds of responses, so no checkpoint can be chosen; take more "
            f"validation questions, more samples or a higher student temperature."
        )
    table["sequence"] = [encode(row.id, row.text, row.finished) for row in table.itertuples()]
    members = [train_member(stage, work, n, source, encode, splits["train"], table) for n in range(settings.members)]
    if not training.is_main():
        return
    first = members[0]
    table["score"] = np.mean([member.scores for member in members], axis=0) if len(members) > 1 else first.scores
    artifacts.write_parquet(work / "history.parquet", first.history)
    artifacts.write_parquet(work / "scores.parquet", table[["id", "kind", "text", "score"]])
    summary = (
        aucs(table["score"].to_numpy(), table["kind_id"].to_numpy())
        | {
            "train_queries": len(first.trainer.train_dataset),
            "skipped_queries": first.skipped,
            "tokens_trained": round(sum(member.tokens_trained for member in members)),
        }
        | training.outcome(first.trainer)
    )
    artifacts.write_json(work / "summary.json", summary)
    for number in range(len(members)):
        training.drop_checkpoints(scoring.member_folder(work, number))


def train_member(
    stage,
    work: Path,
    number: int,
    source: Model,
    encode: prompts.Encoder,
    responses: tuple[pd.DataFrame, pd.DataFrame],
    validation: pd.DataFrame,
) -> Member:
    """Train and save one reward model from `source` on its own draws of the training `responses`, student and teacher.

    The first member's seed is the stage's.
    """
    settings, tokenizer, folder = stage.profile.reward_model, encode.tokenizer, scoring.member_folder(work, number)
    seed = seed_of(stage.seed, "member", number) if number else stage.seed
    examples, skipped = build_examples(*responses, settings, seed)
    if not examples:
        raise UserError(
            f"{stage.label}: no training query has all kinds of responses ({skipped} lack one), so there is nothing "
            f"to learn a reward from; take more samples or a higher student temperature."
        )
    torch.manual_seed(seed)
    model = models.load_scorer(source, tokenizer.pad_token_id, stage.profile.training)
    torch.nn.init.zeros_(model.score.weight)
    arguments = configuration(stage, folder)
    arguments.seed = seed
    trainer = RewardModelTrainer(
        training.with_adapters(model, stage.profile.training, "SEQ_CLS"),
        args=arguments,
        train_dataset=training_rows(examples, encode),
        eval_dataset=[{}],
        processing_class=tokenizer,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        callbacks=[training.ProgressBar("reward model"), *training.stopping_callbacks(stage.profile.stopping)],
        settings=settings,
        validation=validation,
    )
    history = training.train(trainer, folder, stage)
    scores = trainer.scores_of_validation()
    adapted = stage.profile.training.lora is not None
    if adapted and training.is_main() and not training.keeps_in_step(trainer.accelerator):
        one_base.save(trainer.model, folder)  # before they are merged
    training.save_model(trainer, tokenizer, folder / "model")
    return Member(trainer, history, scores, skipped)


def initial_model(stage) -> Model:
    """The model that the reward model starts from: the policy's, or the warm-up of `reward_model.student`.

    UserError where another student has no warm-up here (ours_wo_d), or reads other tokens than the policy writes.
    """
    source, other = policy_source(stage), stage.profile.reward_model.student
    if other is None:
        return source
    if "warmup" not in stage.inputs:
        raise UserError(f"{stage.label}: reward_model.student names a warm-up, and ours_wo_d has none: leave it out.")
    own = models.resolve(stage.profile.model_of(stage.student), stage.root)
    ours, theirs = (padding.own_tokens(models.load_tokenizer(m)) for m in (source, own))
    if ours != theirs:
        raise UserError(
            f"{stage.label}: {other} has another vocabulary than {stage.student}, so it cannot read its tokens: take "
            f"a reward_model.student with the policy's tokenizer."
        )
    return source


def training_rows(examples: dict[str, list[Response]], encode: prompts.Encoder) -> list[dict]:
    """One row a query: token ids and kinds of its responses."""
    rows = []
    for key, responses in examples.items():
        sequences = [encode(key, response.text, response.finished) for response in responses]
        rows.append({"sequences": sequences, "kinds": [r.kind for r in responses], "length": max(map(len, sequences))})
    return rows


def validation_table(students: pd.DataFrame, teachers: pd.DataFrame, settings: RewardModel, seed: int) -> pd.DataFrame:
    """At most VALIDATION_SAMPLES student positives, student negatives and teacher positives of every query with all.

    It does not depend on what is trained on, so ablations and trials are compared on the same responses.
    """
    equal = settings.model_copy(
        update={"source": "student", "teacher_share": 0.5, "samples_per_kind": VALIDATION_SAMPLES, "draw": "samples"}
    )
    examples, _ = build_examples(students, teachers, equal, seed + 1)
    rows = [(key, KINDS[r.kind], r.kind, r.text, r.finished) for key, rs in examples.items() for r in rs]
    return pd.DataFrame(rows, columns=["id", "kind", "kind_id", "text", "finished"])
