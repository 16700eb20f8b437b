"""What archives and reviewers read beside the results: metadata files, cards, and the page of artifact evaluation."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import yaml
from conftest import REPOSITORY
from huggingface_hub import ModelCard

from rdlib.evidence import card_tables, documents
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.gallery import EXHIBITS
from rdlib.profile import load_profile
from rdlib.study import estimate, jobs

CITED = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODELS = ("strong", "weak", "large", "small")


def metadata(name: str) -> dict:
    """A metadata file as it is committed."""
    return json.loads((REPOSITORY / name).read_text(encoding="utf-8"))


def test_title_authors_version_licence_and_keywords_agree_everywhere():
    meta, deposit = metadata("codemeta.json"), metadata(".zenodo.json")
    assert meta["name"] == deposit["title"] == CITED["title"]
    assert meta["version"] == deposit["version"] == CITED["version"] == PROJECT["version"]
    assert meta["license"].rpartition("/")[2] == deposit["license"] == CITED["license"] == PROJECT["license"]
    assert meta["keywords"] == deposit["keywords"] == CITED["keywords"]
    names = [one["name"] for one in CITED["authors"]]
    assert [one["name"] for one in meta["author"]] == [one["name"] for one in deposit["creators"]] == names
    assert meta["dateModified"] == deposit["publication_date"] == str(CITED["date-released"])
    assert meta["description"] == deposit["description"] == " ".join(CITED["abstract"].split())
    needs = [one["name"] + one["version"] for one in meta["softwareRequirements"]]
    assert needs == PROJECT["dependencies"] and meta["alternateName"] == PROJECT["name"]
    assert meta["programmingLanguage"]["version"] == PROJECT["requires-python"]
    (paper,) = CITED["references"]
    assert [one["name"] for one in meta["referencePublication"]] == [paper["title"]]
    assert [one["identifier"] for one in deposit["related_identifiers"]] == [paper["identifiers"][0]["value"]]


def test_a_person_is_cited_by_both_names(tmp_path):
    person = {"family-names": "Doe", "given-names": "Jo", "orcid": "https://orcid.org/0000-0001-2345-6789"}
    (tmp_path / "CITATION.cff").write_text(yaml.safe_dump(CITED | {"authors": [person]}))
    (tmp_path / "pyproject.toml").write_bytes((REPOSITORY / "pyproject.toml").read_bytes())
    (tmp_path / documents.TEMPLATES).mkdir(parents=True)
    for name in ("codemeta.json.j2", "zenodo.json.j2"):
        (tmp_path / documents.TEMPLATES / name).write_bytes((REPOSITORY / documents.TEMPLATES / name).read_bytes())
    meta, deposit = map(json.loads, documents.rendered(tmp_path).values())
    (author,) = meta["author"]
    assert (author["@id"], author["givenName"], author["familyName"]) == (person["orcid"], "Jo", "Doe")
    assert deposit["creators"] == [{"name": "Doe, Jo", "orcid": "0000-0001-2345-6789"}]


# ---- cards


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_a_card_that_the_hub_can_read(name):
    text = (REPOSITORY / f"docs/models/{name}.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    recipe = json.loads((REPOSITORY / f"models/{name}/recipe.json").read_text())
    assert (card.data.license, card.data.library_name, card.data.model_name) == ("apache-2.0", "transformers", name)
    assert not list((REPOSITORY / "models" / name).glob("*.md"))  # its files decide the keys of stages
    values = {one.dataset_type: one.metric_value for one in card.data.eval_results}
    last = recipe["curve"][-1]
    assert values == pytest.approx({f"micro-{kind}": 100 * last[kind] for kind in ("gsm", "mmlu")})
    assert recipe["sha256"] in card.text and f"{recipe['parameters']:,}" in card.text
    assert card.text.lstrip().startswith("<!-- Written from docs/templates/models/each.md.j2")
    assert "a trunk that the two teachers share" in card.text or not recipe["recipe"]["trunk"]


def test_the_data_card_counts_the_world_as_it_is():
    world = card_tables.world(REPOSITORY).iloc[0]
    assert world["facts"] == world["entities"] * 6  # four relations, a link and an epithet each
    assert sum(world[split] for split in ("pretraining", "train", "validation", "test")) == pytest.approx(100)
    sizes = card_tables.micro_sizes(REPOSITORY)
    reference = sizes[(sizes["profile"] == "params/reference.yaml") & (sizes["split"] == "test")]
    datasets = load_profile(REPOSITORY / "params/reference.yaml").datasets
    assert dict(zip(reference["dataset"], reference["questions"], strict=True)) == {
        name: one.test for name, one in datasets.items()
    }
    for row in card_tables.micro_examples(REPOSITORY).itertuples():
        assert row.answer in row.text or row.author == "small"


# ---- artifact evaluation


def test_every_claim_has_a_command_that_retrains_what_it_depends_on():
    assert list(card_tables.CLAIMS) == list(load_criteria()) and set(card_tables.CLAIMS.values()) <= set(EXHIBITS)
    table = card_tables.claim_runs(REPOSITORY)
    assert table["minutes"].notna().all() and (table["stages"] > 0).all()


def test_every_released_exhibit_that_depends_on_training_is_in_one_row():
    page = (REPOSITORY / "docs/artifact_evaluation.md").read_text(encoding="utf-8")
    listed = re.findall(r"`(\w+)`", page.split("## Every table and figure")[1].split("## For an archive")[0])
    released = {path.stem for path in (REPOSITORY / "figures").glob("*.csv")}
    wanted = {name for name, one in EXHIBITS.items() if name in released and one.experiments and not one.cells}
    assert wanted <= set(listed) and all(listed.count(name) == 1 for name in wanted)


def test_the_minutes_are_those_that_a_dry_run_estimates():
    name, table = "figure_5_lambda", card_tables.retraining(REPOSITORY).set_index("name")
    needed = jobs.exhibit_jobs(name, "params/reference.yaml", [0])
    stages = {stage.label: stage for job in needed for stage in job.stages}
    minutes = estimate.minutes_of(list(stages.values()), estimate.RELEASED)
    assert table["minutes"][name] == pytest.approx(minutes, rel=0.1)
    assert 0 < table["stages"][name] <= len(stages)  # a notebook may make another stage with it
