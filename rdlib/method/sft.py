"""Stage 3: supervised fine-tuning on the teacher's responses (Eq. 1-2), through TRL's SFTTrainer.

Method `ours_wo_r` (the warm-up) takes the responses that agree with the pseudo-label; method `sft`, the
baseline, takes them unfiltered; of either at most `responses_per_question` a question. The checkpoint kept is
the one whose greedy answers on the validation questions agree best with the pseudo-labels: no gold answer is
involved.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from rdlib import artifacts
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.method import labelled_positions, trainers, training, voting
from rdlib.method.agreement import Agreement
from rdlib.method.labelled_positions import IGNORED
from rdlib.profile import Profile
from rdlib.settings import Model, Training
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_questions


def select_responses(
    responses: pd.DataFrame, labels: pd.DataFrame, method: str, cap: int | None, seed: int
) -> pd.DataFrame:
    """Eq. 1: the responses that agree with the question's pseudo-label, at most `cap` of a question; all for "sft".

    A sample that a server left unanswered is an empty text that did not end; nobody said it, and nobody learns it.
    """
    responses = responses[(responses["text"] != "") | responses["finished"]]
    if method == "ours_wo_r":
        labelled = voting.propagate(responses, labels)
        responses = labelled[labelled["positive"]]
    return draw(responses, cap, seed)


def of_some_questions(responses: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The responses of a share of the questions, drawn uniformly; of one question at least."""
    ids = sorted(set(responses["id"]))
    if share == 1 or not ids:
        return responses
    kept = random.Random(seed).sample(ids, max(1, round(share * len(ids))))
    return responses[responses["id"].isin(kept)]


def draw(responses: pd.DataFrame, cap: int | None, seed: int) -> pd.DataFrame:
    """At most `cap` responses of each question (None: all), drawn uniformly without replacement."""
    if cap is None:
        return responses
    rng = random.Random(seed)
    picked = []
    for _, group in responses.groupby("id", sort=True):
        indices = list(group.index)
        picked += rng.sample(indices, cap) if len(indices) > cap else indices
    return responses.loc[picked]


def mask_prompt(prompt: list[int], response: list[int], max_length: int) -> dict[str, Any]:
    """Input ids and labels of one response, cut at `max_length`; `truncated` says whether it was.

    The prompt is masked, so that Eq. 2 is of the response's tokens alone.
    """
    ids, labels = prompt + response, [IGNORED] * len(prompt) + response
    length = min(len(ids), max_length)
    return {"input_ids": ids[:length], "labels": labels[:length], "length": length, "truncated": len(ids) > length}


def build_dataset(responses: pd.DataFrame, encode: prompts.Encoder, max_length: int) -> Dataset:
    """The tokenized responses as a dataset; those of which a cut leaves nothing to learn are left out."""
    columns = zip(responses["id"], responses["text"], responses["finished"], strict=True)
    rows = [mask_prompt(encode.prompts[key], encode.response(text, done), max_length) for key, text, done in columns]
    return Dataset.from_list([row for row in rows if row["labels"][-1] != IGNORED])


class AgreementSFTTrainer(trainers.FiniteSteps, trainers.GlobalBatches, SFTTrainer, trainers.PlainCheckpoints):
    """SFTTrainer, whose loss is Eq. 2; its evaluation also gives the agreement by which the checkpoint is chosen."""

    agreement: Agreement
    blank = mask_prompt([0], [], 1)

    def evaluation_loop(self, *args, **kwargs) -> EvalLoopOutput:
        """The usual metrics and `eval_agreement`, which the callbacks of an evaluation get too."""
        output = super().evaluation_loop(*args, **kwargs)
        with training.whole_model(self) as model:
            output.metrics["eval_agreement"] = self.agreement(model, self.accelerator)
        return output


def configuration(stage, work: Path, learning_rate: float | None = None) -> SFTConfig:
    """The training arguments of the stage's profile, but for another `learning_rate`."""
    settings = stage.profile.sft
    of_method = settings.learning_rate_of_warmup if stage.method == "ours_wo_r" else None
    return SFTConfig(
        num_train_epochs=settings.epochs,
        **training.batch_arguments(stage.profile.training, settings.batch_size),
        learning_rate=learning_rate or of_method or settings.learning_rate,
        max_length=settings.max_length,
        router_aux_loss_coef=training.ROUTER,
        dataset_kwargs={"skip_prepare_dataset": True},
        **training.stopping_arguments(stage.profile.stopping, "eval_agreement"),
        **training.common_arguments(stage, work),
    )


def adapters_of(profile: Profile) -> Training:
    """The settings of the training, with the adapters that SFT alone has where it has some."""
    own = profile.sft.lora
    return profile.training if own is None else profile.training.model_copy(update={"lora": own})


def make_trainer(
    stage,
    work: Path,
    source: Model,
    tokenizer,
    chosen: dict[str, pd.DataFrame],
    texts: dict[str, prompts.Prompt],
    learning_rate: float | None = None,
) -> AgreementSFTTrainer:
    """The trainer (Eq. 2) of a model `source` on the responses chosen of "train" and "validation".

    Its `agreement` is not set yet. `texts` are the prompts by question id; a `learning_rate` takes the place of the
    profile's. UserError where a split has no response.
    """
    splits, encode = {}, prompts.Encoder(texts, tokenizer)
    limit = models.context(models.load_config(source))
    models.require_room(limit, max(map(len, encode.prompts.values())), stage.dataset_settings.max_tokens)
    longest = min(stage.profile.sft.max_length, limit or stage.profile.sft.max_length)
    for split, responses in chosen.items():
        if responses.empty:
            raise UserError(
                f"{stage.label}: no {split} response agrees with a pseudo-label, so there is nothing to train on: "
                f"lower voting.threshold or take more questions."
            )
        splits[split] = build_dataset(responses, encode, longest)
        if not len(splits[split]):
            raise UserError(
                f"{stage.label}: sft.max_length {stage.profile.sft.max_length} leaves nothing of any {split} response: "
                f"raise it above the length of the prompts."
            )
    torch.manual_seed(stage.seed)
    trainer = AgreementSFTTrainer(
        models.load_causal_lm(source, stage.profile.training),
        args=configuration(stage, work, learning_rate),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        peft_config=training.lora_config(adapters_of(stage.profile), "CAUSAL_LM"),
        callbacks=training.stopping_callbacks(stage.profile.stopping),
    )
    labelled_positions.score_alone(trainer.model)
    return trainer


def run(stage, work: Path) -> None:
    """Stage 03_sft_warmup: write the model, history.parquet and summary.json."""
    profile, settings = stage.profile, stage.dataset_settings
    source = models.resolve(profile.model_of(stage.student), stage.root)
    tokenizer = models.load_tokenizer(source)
    responses = artifacts.read_parquet(stage.input("teacher") / "responses.parquet")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet")
    questions = read_questions(stage.input("data"), "train", "validation")
    texts = prompts.of_questions(settings, questions)
    given = {split: responses[responses["split"] == split] for split in ("train", "validation")}
    given["train"] = of_some_questions(given["train"], profile.sft.question_share, stage.seed)
    chosen = {
        split: select_responses(given[split], labels, stage.method, cap, stage.seed)
        for split, cap in (("train", profile.sft.responses_per_question), ("validation", 1))
    }
    trainer = make_trainer(stage, work, source, tokenizer, chosen, texts)
    trainer.add_callback(training.ProgressBar("SFT"))
    validation = questions[questions["split"] == "validation"]
    batch = profile.generation.batch_size
    trainer.agreement = Agreement(validation, labels, tokenizer, settings, batch, stage.answer_kind)
    history = training.train(trainer, work, stage)
    training.save_model(trainer, tokenizer, work / "model")
    if not training.is_main():
        return
    artifacts.write_parquet(work / "history.parquet", history)
    responses = trainer.train_dataset
    tokens = round(sum(responses["length"]) * trainer.state.epoch)
    summary = {"responses": len(responses), "tokens_trained": tokens} | training.outcome(trainer)
    summary["truncated"] = sum(responses["truncated"])
    if left_out := len(chosen["train"]) - len(responses):
        summary["left_out"] = left_out  # of those max_length leaves nothing to learn
    artifacts.write_json(work / "summary.json", summary)
    training.drop_checkpoints(work)
