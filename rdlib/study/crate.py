"""A study as an RO-Crate, the form that archives read: `python -m rdlib crate SOURCE OUT`, or `make crate`.

SOURCE is a finished run (`runs/micro`) or released results (`figures`). OUT gets `ro-crate-metadata.json`, by the
Workflow Run Crate profile 0.5 (https://w3id.org/ro/wfrun/workflow/0.5), and the files that it names: workflow, result
tables, figures and manifests. Models and other artifacts are not copied; each is named by its SHA-256 (RFC 6920). With
OUT the same as SOURCE nothing is copied, and artifacts are named by their place.

In the metadata an experiment of a seed is a run of the workflow, and every stage is an action of its own: what ran it
(commit, packages, processor), inputs, results, overrides, start and end. An unfinished run is refused, since an archive
is permanent.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import mimetypes
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rocrate.model import ContextEntity, Entity
from rocrate.rocrate import ROCrate

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import PROVENANCE, every_seed, read_record, seed_of
from rdlib.paths import ROOT
from rdlib.study.stage import without_places

METADATA = "ro-crate-metadata.json"
VERSION = "1.1"  # of RO-Crate, which the profiles below extend
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
DONE = "http://schema.org/CompletedActionStatus"
WORKFLOW = "Snakefile"
KINDS = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}
FORMATS = {".parquet": "application/vnd.apache.parquet", ".yaml": "application/yaml", ".md": "text/markdown"}
DRAWN = (".csv", ".md", ".pdf", ".png")  # the files of an exhibit
FACTS = ("processor", "numerics", "torch_kernels", "instruction_sets", "dirty")  # of an environment
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
README = """# {title}

{what}

`ro-crate-metadata.json` describes every file (RO-Crate 1.1, Workflow Run Crate 0.5). Files whose name begins with
`ni:` have no copy here: the name is their SHA-256 (RFC 6920). `provenance.json` and `settings.json` of a seed name its
commands, commits and settings; docs/released_files.md in the repository explains the columns of the tables.
"""
ABOUT = (
    "{what}: result tables, figures and the provenance of {stages} stages. Each action names what it read, what it "
    "wrote, by SHA-256, and the software and the processor that ran it."
)


# ---- what is described


@dataclass(frozen=True)
class Made:
    """A stage that ran: its label, the hash of its content, the number of its environment.

    `manifest` is that of its folder; a released stage has none, and so no inputs, files and times.
    """

    label: str
    content: str
    environment: str
    manifest: dict[str, Any] | None


@dataclass(frozen=True)
class Source:
    """Folders of result tables with their provenance, the stages by label, and the files of exhibits."""

    folder: Path
    seeds: dict[Path, dict[str, Any]]
    stages: dict[str, Made]
    exhibits: list[Path]

    def path_of(self, made: Made) -> Path:
        """The folder of a stage of a run, whose label begins with the run's name."""
        return self.folder / made.label.partition("/")[2]


def read(folder: Path) -> Source:
    """What a run's folder, released results, figures with such, or a single seed has.

    UserError for a folder without results, or for a run that is not finished: what is missing, and what finishes it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give a run such as runs/micro, or released results.")
    results = folder / "results" if (folder / "results").is_dir() else folder
    found = [folder] if (folder / PROVENANCE).is_file() else every_seed(results)
    seeds = {seed: read_record(seed) for seed in found if (seed / PROVENANCE).is_file()}
    is_run = _require_gathered(folder, seeds)
    if not seeds:
        raise UserError(f"{folder} holds no results: give the folder of a finished run, or released results.")
    stages: dict[str, Made] = {}
    for seed, record in seeds.items():
        for name, one in record["experiments"].items():
            if missing := one.get("missing", 0):
                what = f"{missing} runs of the experiment {name} are missing"
                raise UserError(f"{seed} is not finished: {what}. Finish it by `{one['command']}`.")
            for label, stage in one["stages"].items():
                manifest = _manifest(folder.parent / label, stage["content"], one["command"]) if is_run else None
                stages.setdefault(label, Made(label, stage["content"], stage["made"], manifest))
    drawn = folder / "figures" if is_run else folder if results != folder else None
    exhibits = sorted(path for path in drawn.iterdir() if path.suffix in DRAWN) if drawn and drawn.is_dir() else []
    return Source(folder, seeds, stages, exhibits)


def _require_gathered(folder: Path, seeds: dict[Path, dict[str, Any]]) -> bool:
    """Whether a folder is a run's, with stages; UserError for a stage that has not ended, or a seed without tables."""
    profile = next((record["profile"] for record in seeds.values()), "<its profile>")
    command = f"`make study PROFILE={profile} SEEDS="
    if begun := sorted(folder.rglob("*.partial")):
        left = begun[0].relative_to(folder).as_posix().removesuffix(".partial")
        raise UserError(
            f"{folder} is not finished: {left} was begun and has not ended ({len(begun)} such stages). Finish it by "
            f"{command}{begun[0].parent.name.removeprefix('seed')}`, or delete its folder, which ends in .partial."
        )
    names = [path.parent.parent.name for path in folder.rglob(artifacts.MANIFEST)]
    made = {int(name[4:]) for name in names if name.startswith("seed")}
    if left := sorted(made - {seed_of(seed) for seed in seeds}):
        what = f"seed {left[0]} has stages and no result tables"
        raise UserError(f"{folder} is not finished: {what}. Finish it by {command}{left[0]}`.")
    return bool(made)


def _manifest(folder: Path, content: str, command: str) -> dict[str, Any]:
    """The manifest of a stage that result tables were gathered from; UserError where it is another's or gone."""
    manifest = artifacts.read_manifest(folder)
    if manifest is None or artifacts.content_hash(manifest["files"]) != content:
        what = "is gone" if manifest is None else "was recomputed after the result tables were gathered"
        raise UserError(f"The run is not finished: {folder} {what}. Finish it by `{command}`.")
    return manifest


# ---- the crate


class Crate:
    """A crate as it is filled; entities are added once, and found again by their ids."""

    def __init__(self, source: Source, in_place: bool) -> None:
        self.source, self.in_place = source, in_place
        self.crate = ROCrate(version=VERSION)
        self.crate.metadata.extra_contexts.append(CONTEXT)
        self.contents: dict[str, Entity] = {}

    def entity(self, identifier: str, kind: str, /, **properties: Any) -> Entity:
        """A contextual entity, the one that is there where it was added before."""
        found = self.crate.get(identifier)
        if found is None:
            content = {"@type": kind} | {key: value for key, value in properties.items() if value not in (None, "", [])}
            found = self.crate.add(ContextEntity(self.crate, identifier, properties=content))
        return found

    def fill(self) -> ROCrate:
        """Add everything that the source has; returns the crate."""
        self._describe()
        self.workflow = self._workflow()
        self._exhibits = [self.file(path) for path in self.source.exhibits]
        self.contents = {made.label: self._content(made) for made in self.source.stages.values()}
        for folder, record in self.source.seeds.items():
            self._seed(folder, record)
        for made in self.source.stages.values():
            self._stage(made)
        self.workflow["input"] = self.crate.get_by_type("FormalParameter")
        for one in self.crate.get_entities():  # a list of one as its value, as RO-Crate 1.1 recommends
            lists = {key: value for key, value in one.properties().items() if isinstance(value, list) and key[0] != "@"}
            one.properties().update({key: value[0] for key, value in lists.items() if len(value) == 1})
        return self.crate

    def _describe(self) -> None:
        """Name, licence and authors, as CITATION.cff has them, and the profiles that the crate follows."""
        cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        names = ", ".join(sorted({Path(record["profile"]).stem for record in self.source.seeds.values()}))
        seeds = ", ".join(str(seed_of(folder)) for folder in self.source.seeds)
        what = f"{cited['title']}; profile {names}, seeds {seeds}"
        root = self.crate.root_dataset
        root["name"], root["description"] = what, ABOUT.format(what=what, stages=len(self.source.stages))
        licence = {"name": cited["license"], "description": "The licence of all files"}
        root["license"] = self.entity(f"https://spdx.org/licenses/{cited['license']}", "CreativeWork", **licence)
        authors = [self._author(one) for one in cited["authors"]]
        root["author"], root["publisher"] = authors, authors[0]
        root["keywords"], root["version"] = ", ".join(cited["keywords"]), str(cited["version"])
        profiles = [(url, name, url.rpartition("/")[2]) for url, name in PROFILES.items()]
        root["conformsTo"] = [self.entity(url, "CreativeWork", name=name, version=no) for url, name, no in profiles]
        there = {path.name for path in self.source.folder.iterdir()} if self.in_place else set()
        if "README.md" not in there or METADATA in there:  # else it is the user's own
            about = {"name": "What this crate holds", "encodingFormat": "text/markdown", "about": root}
            text = README.format(title=cited["title"], what=root["description"]).encode()
            self.crate.add_file(BytesIO(text), "README.md", properties=about, record_size=True)

    def _author(self, one: dict[str, str]) -> Entity:
        if "family-names" in one:
            names = {"givenName": one["given-names"], "familyName": one["family-names"]}
            return self.entity(one.get("orcid", _fragment(one["family-names"])), "Person", **names)
        return self.entity(_fragment("author", one["name"]), "Organization", name=one["name"])

    def _workflow(self) -> Entity:
        """The workflow as the commit has it that made the most stages."""
        numbers = [one.environment for one in self.source.stages.values()]
        commits = self._environment(max(set(numbers), key=numbers.count))["commits"] if numbers else ["unknown"]
        content, commit = _of_commit(commits[-1], WORKFLOW)
        about = {"lang": "snakemake", "lang_version": metadata.version("snakemake"), "record_size": True}
        found = self.crate.add_workflow(BytesIO(content), WORKFLOW, main=True, **about)
        found["name"], found["version"] = "The study as a workflow", commit
        found["description"] = "Jobs, each a notebook that papermill runs; rdlib.study.jobs says which there are."
        found["encodingFormat"], found["conformsTo"] = "text/plain", {"@id": BIOSCHEMAS}
        found["sha256"] = hashlib.sha256(content).hexdigest()
        return found

    def _environment(self, number: str) -> dict[str, Any]:
        known = (record["environments"] for record in self.source.seeds.values())
        return next(one[number] for one in known if number in one)

    # ---- files

    def file(self, path: Path) -> Entity:
        """A file of the source, with its size and hash."""
        name = path.relative_to(self.source.folder).as_posix()
        kind = FORMATS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        about = {"name": name, "encodingFormat": kind, "sha256": artifacts.file_hash(path)}
        return self.crate.add_file(path, name, properties=about, record_size=True)

    def artifact(self, made: Made, name: str, digest: str) -> Entity:
        """A file that a stage wrote: named by its place where that is in the crate, else by its hash (RFC 6920)."""
        if self.in_place:
            return self.file(self.source.path_of(made) / name)
        number = "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
        return self.crate.get(number) or self.crate.add_file(number, properties={"name": name, "sha256": digest})

    def _content(self, made: Made) -> Entity:
        """What a stage wrote, as a whole: its hash, and its files where its manifest names them."""
        label = f"{made.label}, all files"
        found = self.entity(_fragment("content", made.label), "Collection", name=label, identifier=made.content)
        self.crate.root_dataset.append_to("mentions", found)
        if made.manifest is not None:
            manifest = self.file(self.source.path_of(made) / artifacts.MANIFEST)
            files = [self.artifact(made, name, digest) for name, digest in made.manifest["files"].items()]
            found["mainEntity"], found["hasPart"] = manifest, [manifest, *files]
        return found

    # ---- parameters and actions

    def value(self, name: str, value: Any) -> Entity:
        """The value of a parameter; equal values are one entity, an example of the workflow's input."""
        text = value if type(value) in KINDS else json.dumps(value, sort_keys=True)
        shown = str(text) if len(str(text)) < 60 else artifacts.content_hash(text)[:16]
        known = self.crate.get(_fragment("value", name, shown))
        if known is not None:
            return known
        number = _fragment("parameter", name)
        slot = self.crate.get(number) or self.crate.add_formal_parameter(name, KINDS[type(text)], identifier=number)
        made = self.entity(_fragment("value", name, shown), "PropertyValue", name=name, exampleOfWork=slot)
        made["value"] = text
        slot.append_to("workExample", made)
        return made

    def _seed(self, folder: Path, record: dict[str, Any]) -> None:
        """The experiments of a seed: runs of the workflow, whose results are the seed's tables and the figures."""
        tables = [self.file(path) for path in sorted(folder.iterdir()) if path.is_file()]
        settings = folder / "settings.json"
        given = _flat(without_places(artifacts.read_json(settings))) if settings.is_file() else {}
        given |= {"seed": record["seed"], "profile": without_places(record["profile"])}
        values = [self.value(name, value) for name, value in given.items()]
        for name, one in record["experiments"].items():
            ended = [made["ended"] for label in one["stages"] if (made := self.source.stages[label].manifest)]
            self._action(
                _fragment("experiment", f"seed{record['seed']}", name),
                self.workflow,
                [*values, self.value("experiment", name)],
                [*tables, *self._exhibits, *(self.contents[label] for label in one["stages"])],
                name=f"{one['title']}, seed {record['seed']}",
                description=one["command"],
                startTime=one["started"],
                endTime=max(ended, default=None),
            )

    def _stage(self, made: Made) -> None:
        """The action of one stage; a released one is known by its label alone, which ends .../seed0/name@overrides."""
        manifest = made.manifest or {}
        *_, seed, last = made.label.split("/")
        name, _, variant = last.partition("@")
        given = manifest.get("overrides", {"overrides": variant} if variant else {})
        values = {"seed": int(seed.removeprefix("seed"))} | given
        inputs = [self.contents[one["stage"]] for one in manifest.get("inputs", {}).values()]
        self._action(
            _fragment("stage", made.label),
            self._program(made.environment),
            [*inputs, *(self.value(name, value) for name, value in values.items())],
            [self.contents[made.label]],
            name=made.label,
            description=f"The stage {name} of the study.",
            startTime=manifest.get("started"),
            endTime=manifest.get("ended"),
        )

    def _action(self, identifier: str, by: Entity, read: list[Entity], made: list[Entity], **properties: Any) -> None:
        about = {key: value for key, value in properties.items() if value}
        action = self.crate.add_action(by, identifier, read, made, about | {"actionStatus": DONE})
        self.crate.root_dataset.append_to("mentions", action)

    def _program(self, number: str) -> Entity:
        """The software that made stages, at its commits, with its packages, processor and numerical mode."""
        made = self._environment(number)
        needs, facts = [], []
        for name, version in ({"python": made["python"]} | made["packages"]).items():
            place = _fragment("software", name, version)
            needs.append(self.entity(place, "SoftwareApplication", name=name, version=version))
        for name in (name for name in FACTS if name in made):
            value = " ".join(made[name]) if isinstance(made[name], list) else str(made[name])
            facts.append(self.entity(_fragment("environment", number, name), "PropertyValue", name=name, value=value))
        return self.entity(
            _fragment("environment", number),
            "SoftwareApplication",
            name=f"rdlib at {', '.join(commit[:12] for commit in made['commits'])}",
            softwareVersion=", ".join(made["commits"]),
            operatingSystem=made["machine"],
            softwareRequirements=needs,
            additionalProperty=facts,
        )


def _fragment(*parts: str) -> str:
    return "#" + quote("/".join(parts), safe="/@=,.:;-_")


def _of_commit(commit: str, path: str) -> tuple[bytes, str]:
    """A file of the repository as a commit has it, and the commit; today's and "unknown" where git lacks it."""
    try:
        shown = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return (ROOT / path).read_bytes(), "unknown"
    return shown.stdout, commit


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by their whole names, as "ppo.kl_coef"; those without a value left out."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}.")
        elif value is not None:
            found[above + name] = value
    return found


# ---- the command


def write(source: Path, out: Path) -> Path:
    """Write the crate of a run or of released results to `out`; returns the path of its metadata.

    UserError for a run that is not finished, for a source without results, or for a folder that holds something else.
    """
    in_place = out.resolve() == source.resolve()
    replaced = (out / METADATA).is_file() or (out.is_dir() and not any(out.iterdir()))
    if not in_place and out.exists() and not replaced:
        raise UserError(f"{out} holds something else than a crate: give another folder, or empty it first.")
    filled = Crate(read(source), in_place).fill()
    made = out if in_place else out.with_name(f".{out.name}.new")
    if not in_place:
        shutil.rmtree(made, ignore_errors=True)
    filled.write(made)
    if not in_place:
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    return out / METADATA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and OUT."""
    parser.add_argument("source", type=Path, help="a finished run (runs/micro), or released results (figures)")
    parser.add_argument("out", type=Path, help="folder for the crate; the source itself: without copies")


def run(options: argparse.Namespace) -> None:
    """Write the crate, and print where it is."""
    path = write(options.source, options.out)
    size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()) / 1e6
    print(f"The crate is ready: {path} ({size:.1f} MB). `make check KIND=crate ARGS={path.parent}` validates it.")
