"""Stage 2: pseudo-labels by majority vote over the teacher's high-confidence responses (section 3.1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from rdlib import artifacts, streams
from rdlib.tasks.questions import as_gold, read_aliases, read_gold

VOTE = ["id", "split", "confidence", "answer"]  # what the vote reads of the teacher's responses


def majority_vote(answers: Sequence[str | None], threshold: float) -> tuple[str | None, float]:
    """The most frequent answer and its share of all responses; None where the share is not above the threshold.

    A response without an answer counts in the denominator and votes for nothing.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return None, 0.0
    answer, count = min(votes.items(), key=lambda item: (-item[1], item[0]))
    share = count / len(answers)
    return (answer if share > threshold else None), share


def pseudo_labels(responses: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """One row a question: id, split, pseudo_label (None: the question is in Q_fail), share, extractable."""
    rows = []
    high = responses[responses["confidence"] == "high"]
    for (key, split), group in high.groupby(["id", "split"], sort=True):
        given = [None if pd.isna(answer) else answer for answer in group["answer"]]
        label, share = majority_vote(given, threshold)
        rows.append((key, split, label, share, sum(answer is not None for answer in given) / len(given)))
    table = pd.DataFrame(rows, columns=["id", "split", "pseudo_label", "share", "extractable"])
    return table.astype(dict.fromkeys(["id", "split", "pseudo_label"], "str") | {"share": float, "extractable": float})


def flip(labels: pd.DataFrame, responses: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """`labels` with a share of its pseudo-labels made wrong, drawn uniformly (the reviewers' question R4).

    A flipped label is the teacher's most frequent other answer to the question or, where it gave no other, the
    label of another question, drawn uniformly among those that differ.
    """
    known = labels.dropna(subset="pseudo_label").sort_values("id")
    rng = random.Random(seed)
    chosen = rng.sample(list(known["id"]), round(share * len(known)))
    given = responses.dropna(subset="answer").groupby("id")["answer"].agg(Counter)
    wrong = {}
    current, values = known.set_index("id")["pseudo_label"], sorted(set(known["pseudo_label"]))
    for key in chosen:
        others = {a: n for a, n in given[key].items() if a != current[key]}
        if others:
            wrong[key] = min(others, key=lambda answer: (-others[answer], answer))
        elif len(values) > 1:
            wrong[key] = rng.choice([value for value in values if value != current[key]])
    flipped = [wrong.get(key, label) for key, label in zip(labels["id"], labels["pseudo_label"], strict=True)]
    return labels.assign(pseudo_label=flipped)


def propagate(responses: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Responses with `pseudo_label` and `positive` (a(y) = a*(x)); those of Q_fail are left out."""
    known = labels.dropna(subset="pseudo_label")[["id", "pseudo_label"]]
    labelled = responses.merge(known, on="id", how="inner", validate="many_to_one")
    return labelled.assign(positive=(labelled["answer"] == labelled["pseudo_label"]).fillna(False).astype(bool))


def judgement(
    responses: pd.DataFrame,
    labels: pd.DataFrame,
    gold: pd.Series,
    aliases: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> dict[str, int]:
    """Figure 4's counts: pseudo-labels equal to gold, and responses judged as gold would judge them.

    `questions` and `failed` count all, the others only questions with a gold answer. One of its `aliases` (by
    `questions.read_aliases`) is right as well; a response is positive where it says what the label says.
    """
    counts = {"questions": len(labels), "failed": int(labels["pseudo_label"].isna().sum())}
    labels = labels[labels["id"].isin(gold.dropna().index)]
    labelled = propagate(responses, labels)
    truth = is_gold(labelled["answer"], labelled["id"], gold, aliases)
    known = labels.dropna(subset="pseudo_label")
    return counts | {
        "labelled": len(known),
        "label_correct": int(is_gold(known["pseudo_label"], known["id"], gold, aliases).sum()),
        "responses": len(labelled),
        "judged_right": int((labelled["positive"] == truth).sum()),
        "positives": int(labelled["positive"].sum()),
        "positives_right": int((labelled["positive"] & truth).sum()),
    }


def is_gold(answers: pd.Series, ids: pd.Series, gold: pd.Series, aliases: Mapping) -> pd.Series:
    """Whether each answer is its question's gold answer or an alias of it."""
    if aliases:
        answers = pd.Series(as_gold(answers, ids, aliases), answers.index, dtype="str")
    return answers == ids.map(gold)


def labels_of(responses: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The labels, out of a file of them, of the questions of a chunk of responses; both are in order of id."""
    first, last = responses["id"].min(), responses["id"].max()
    return pd.read_parquet(path, filters=[("id", ">=", first), ("id", "<=", last)])


def run(stage, work: Path) -> None:
    """Stage 02_pseudo_labels: write labels.parquet and summary.json with the failure ratio (Figure 3)."""
    source, target = stage.input("teacher") / "responses.parquet", work / "labels.parquet"
    settings = stage.profile.voting
    chunks = (pseudo_labels(chunk, settings.threshold) for chunk in streams.whole_questions(source, VOTE))
    if settings.flip_share:  # draws among all labels, so it holds all responses
        labels = pd.concat(chunks, ignore_index=True)
        chunks = [flip(labels, artifacts.read_parquet(source), settings.flip_share, stage.seed)]
    streams.write_parquet(target, chunks)
    missing = [chunk["pseudo_label"].isna() for chunk in streams.read_parquet(target, ["pseudo_label"])]
    questions, failed = sum(map(len, missing)), int(sum(map(sum, missing)))
    artifacts.write_json(
        work / "summary.json", {"questions": questions, "failed": failed, "failure_ratio": failed / questions}
    )


def run_judgement(stage, work: Path) -> None:
    """Stage 02_judgement: write judgement.json, the pseudo-labels against gold by split (Figure 4)."""
    responses, labels = stage.input("teacher") / "responses.parquet", stage.input("labels") / "labels.parquet"
    gold, aliases = read_gold(stage.input("gold")), read_aliases(stage.input("gold"))
    counts = {split: Counter() for split in ("train", "validation")}
    for chunk in streams.whole_questions(responses, VOTE):
        known = labels_of(chunk, labels)
        for split, total in counts.items():
            total.update(judgement(chunk[chunk["split"] == split], known[known["split"] == split], gold, aliases))
    artifacts.write_json(work / "judgement.json", counts)
