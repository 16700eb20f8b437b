"""A study as an RO-Crate, the form that archives read: `python -m rdlib crate SOURCE OUT`, or `make crate`.

SOURCE is a finished run (`runs/micro`) or released results (`figures`). OUT gets `ro-crate-metadata.json`, by the
Workflow Run Crate profile 0.5 (https://w3id.org/ro/wfrun/workflow/0.5), and the files that it names: workflow, result
tables, figures and manifests. Models and other artifacts are not copied; each is named by its SHA-256 (RFC 6920). With
OUT the same as SOURCE nothing is copied, and artifacts are named by their place.

In the metadata an experiment of a seed is a run of the workflow, and every stage is an action of its own: what ran it
(commit, packages, processor), inputs, results, overrides, start and end.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import mimetypes
import shutil
import subprocess
from collections.abc import Iterable
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
from rdlib.evidence.result_tables import seed_of
from rdlib.paths import ROOT
from rdlib.study import crate_record
from rdlib.study.crate_record import Made, Record
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


def _ni(digest: str) -> str:
    """The name of a file by its SHA-256 in hexadecimal digits, as RFC 6920 writes it."""
    return "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")


def _fragment(*parts: str) -> str:
    return "#" + quote("/".join(parts), safe="/@=,.:;-_")


def _of_commit(commit: str, path: str) -> tuple[bytes, str]:
    """A file of the repository as a commit has it, and the commit; today's and "unknown" where git lacks it."""
    try:
        words = ["git", "show", f"{commit}:{path}"]
        shown = subprocess.run(words, capture_output=True, cwd=ROOT)
    except OSError:
        shown = None
    if shown is not None and shown.returncode == 0:
        return shown.stdout, commit
    return (ROOT / path).read_bytes(), "unknown"


class Crate:
    """A crate as it is filled: `files`, `settings` and `stages` are added once, and found again by what they are."""

    def __init__(self, record: Record, in_place: bool) -> None:
        self.record, self.in_place = record, in_place
        before = {name for name in (METADATA, "README.md") if in_place and (record.folder / name).exists()}
        self.has_readme = before == {"README.md"}  # the user's own
        self.crate = ROCrate(version=VERSION)
        self.crate.metadata.extra_contexts.append(CONTEXT)
        self.slots: dict[str, Entity] = {}
        self.programs: dict[str, Entity] = {}
        self.contents: dict[str, Entity] = {}

    def entity(self, identifier: str, kind: str, /, **properties: Any) -> Entity:
        """A contextual entity, the one that is there where it was added before."""
        found = self.crate.get(identifier)
        if found is None:
            content = {"@type": kind} | {key: value for key, value in properties.items() if value not in (None, "", [])}
            found = self.crate.add(ContextEntity(self.crate, identifier, properties=content))
        return found

    # ---- the whole

    def fill(self) -> ROCrate:
        """Add everything that the record has; returns the crate."""
        self._describe()
        self.workflow = self._workflow()
        self._exhibits = [self.file(path, path.relative_to(self.record.folder)) for path in self.record.exhibits]
        for made in self.record.stages.values():
            self.contents[made.label] = self._content(made)
        for folder in self.record.seeds:
            self._seed(folder)
        for made in self.record.stages.values():
            self._stage(made)
        self.workflow["input"] = list(self.slots.values())
        for one in self.crate.get_entities():
            single = {key: value[0] for key, value in one.properties().items() if _is_single(key, value)}
            one.properties().update(single)  # as RO-Crate 1.1 recommends
        return self.crate

    def _describe(self) -> None:
        """Name, licence and authors, as CITATION.cff has them, and the profiles that the crate follows."""
        cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        names = ", ".join(sorted({Path(record["profile"]).stem for record in self.record.seeds.values()}))
        seeds = ", ".join(str(seed_of(folder)) for folder in self.record.seeds)
        what = f"{cited['title']}; profile {names}, seeds {seeds}"
        root = self.crate.root_dataset
        root["name"], root["description"] = what, ABOUT.format(what=what, stages=len(self.record.stages))
        spdx = f"https://spdx.org/licenses/{cited['license']}"
        root["license"] = self.entity(
            spdx, "CreativeWork", name=cited["license"], description="The licence of all files"
        )
        authors = [self._author(one) for one in cited["authors"]]
        root["author"], root["publisher"] = authors, authors[0]
        root["keywords"], root["version"] = ", ".join(cited["keywords"]), str(cited["version"])
        profiles = [(url, name, url.rpartition("/")[2]) for url, name in PROFILES.items()]
        root["conformsTo"] = [self.entity(url, "CreativeWork", name=name, version=no) for url, name, no in profiles]
        if not self.has_readme:
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
        made = [one.environment for one in self.record.stages.values()]
        commits = self.record.environments[max(set(made), key=made.count)]["commits"] if made else ["unknown"]
        content, commit = _of_commit(commits[-1], WORKFLOW)
        version = metadata.version("snakemake")
        found = self.crate.add_workflow(
            BytesIO(content), WORKFLOW, main=True, lang="snakemake", lang_version=version, record_size=True
        )
        found["name"], found["version"] = "The study as a workflow", commit
        found["description"] = "Jobs, each a notebook that papermill runs; rdlib.study.jobs says which there are."
        found["encodingFormat"], found["conformsTo"] = "text/plain", {"@id": BIOSCHEMAS}
        found["sha256"] = hashlib.sha256(content).hexdigest()
        return found

    # ---- files

    def file(self, path: Path, name: Path, **properties: Any) -> Entity:
        """A file of the crate, with its size and hash."""
        kinds = {".parquet": "application/vnd.apache.parquet", ".yaml": "application/yaml", ".md": "text/markdown"}
        kind = kinds.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        about = {"name": name.as_posix(), "encodingFormat": kind, "sha256": artifacts.file_hash(path)} | properties
        return self.crate.add_file(path, name.as_posix(), properties=about, record_size=True)

    def artifact(self, made: Made, name: str, digest: str) -> Entity:
        """A file that a stage wrote: named by its place where that is in the crate, else by its hash."""
        path = self.record.path_of(made) / name
        if self.in_place:
            return self.file(path, path.relative_to(self.record.folder))
        known = self.crate.get(_ni(digest))
        return known or self.crate.add_file(_ni(digest), properties={"name": name, "sha256": digest})

    def _content(self, made: Made) -> Entity:
        """What a stage wrote, as a whole: its hash, and its files where its manifest names them."""
        label = f"{made.label}, all files"
        found = self.entity(_fragment("content", made.label), "Collection", name=label, identifier=made.content)
        self.crate.root_dataset.append_to("mentions", found)
        if made.manifest is not None:
            path = self.record.path_of(made) / artifacts.MANIFEST
            manifest = self.file(path, path.relative_to(self.record.folder))
            files = [self.artifact(made, name, digest) for name, digest in made.manifest["files"].items()]
            found["mainEntity"], found["hasPart"] = manifest, [manifest, *files]
        return found

    # ---- parameters

    def value(self, name: str, value: Any) -> Entity:
        """The value of a parameter; equal values are one entity, and its slot is an input of the workflow."""
        text = value if type(value) in KINDS else json.dumps(value, sort_keys=True)
        shown = str(text) if len(str(text)) < 60 else artifacts.content_hash(text)[:16]
        if (known := self.crate.get(_fragment("value", name, shown))) is not None:
            return known
        slot = self._slot(name, KINDS[type(text)])
        made = self.entity(_fragment("value", name, shown), "PropertyValue", name=name, exampleOfWork=slot)
        made["value"] = text
        slot.append_to("workExample", made)
        return made

    def _slot(self, name: str, kind: str) -> Entity:
        if name not in self.slots:
            self.slots[name] = self.crate.add_formal_parameter(name, kind, identifier=_fragment("parameter", name))
        return self.slots[name]

    # ---- actions

    def _seed(self, folder: Path) -> None:
        """The experiments of a seed: runs of the workflow, whose results are the seed's tables and the figures."""
        record, tables = self.record.seeds[folder], self.record.tables[folder]
        results = [self.file(path, path.relative_to(self.record.folder)) for path in tables]
        settings = folder / "settings.json"
        given = _flat(without_places(artifacts.read_json(settings))) if settings.is_file() else {}
        values = [self.value(name, value) for name, value in given.items()]
        values += [self.value("seed", record["seed"]), self.value("profile", without_places(record["profile"]))]
        for name, one in record["experiments"].items():
            ended = [m["ended"] for label in one["stages"] if (m := self.record.stages[label].manifest)]
            contents = [self.contents[label] for label in one["stages"]]
            self._action(
                _fragment("experiment", f"seed{record['seed']}", name),
                self.workflow,
                [*values, self.value("experiment", name)],
                [*results, *self._exhibits, *contents],
                name=f"{one['title']}, seed {record['seed']}",
                description=one["command"],
                startTime=one["started"],
                endTime=max(ended, default=None),
            )

    def _stage(self, made: Made) -> None:
        """The action of one stage."""
        manifest = made.manifest or {}
        inputs = [self.contents[one["stage"]] for one in manifest.get("inputs", {}).values()]
        overrides = manifest.get("overrides", {})
        if made.manifest is None and (variant := made.label.rpartition("/")[2].partition("@")[2]):
            overrides = {"overrides": variant}
        values = [self.value(name, value) for name, value in {"seed": made.seed, **overrides}.items()]
        self._action(
            _fragment("stage", made.label),
            self._program(made.environment),
            [*inputs, *values],
            [self.contents[made.label]],
            name=made.label,
            description=f"The stage {made.name} of the study.",
            startTime=manifest.get("started"),
            endTime=manifest.get("ended"),
        )

    def _action(
        self, identifier: str, by: Entity, read: list[Entity], made: list[Entity], /, **properties: Any
    ) -> None:
        about = {key: value for key, value in properties.items() if value}
        action = self.crate.add_action(by, identifier, read, made, about | {"actionStatus": DONE})
        self.crate.root_dataset.append_to("mentions", action)

    def _program(self, number: str) -> Entity:
        """The software that made stages, at its commits, with its packages, processor and numerical mode."""
        if number not in self.programs:
            made = self.record.environments[number]
            packages = {"python": made["python"]} | made["packages"]
            needs = [
                self.entity(_fragment("software", name, version), "SoftwareApplication", name=name, version=version)
                for name, version in packages.items()
            ]
            shown = ("processor", "numerics", "torch_kernels", "instruction_sets", "dirty")
            others = {name: made[name] for name in shown if name in made}
            facts = [self._fact(number, name, value) for name, value in others.items()]
            self.programs[number] = self.entity(
                _fragment("environment", number),
                "SoftwareApplication",
                name=f"rdlib at {', '.join(commit[:12] for commit in made['commits'])}",
                softwareVersion=", ".join(made["commits"]),
                operatingSystem=made["machine"],
                softwareRequirements=needs,
                additionalProperty=facts,
            )
        return self.programs[number]

    def _fact(self, number: str, name: str, value: Any) -> Entity:
        shown = " ".join(value) if isinstance(value, list) else value
        return self.entity(_fragment("environment", number, name), "PropertyValue", name=name, value=str(shown))


def _is_single(key: str, value: Any) -> bool:
    return not key.startswith("@") and isinstance(value, list) and len(value) == 1


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
    if not in_place and out.exists() and not (out.is_dir() and _may_be_replaced(out)):
        raise UserError(f"{out} holds something else than a crate: give another folder, or empty it first.")
    filled = Crate(crate_record.read(source), in_place).fill()
    if in_place:
        filled.write(out)
        return out / METADATA
    made = out.with_name(f".{out.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    filled.write(made)
    shutil.rmtree(out, ignore_errors=True)
    made.rename(out)
    return out / METADATA


def _may_be_replaced(out: Path) -> bool:
    return (out / METADATA).is_file() or not any(out.iterdir())


def size_of(paths: Iterable[Path]) -> float:
    """The size of some files in MB."""
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and OUT."""
    parser.add_argument("source", type=Path, help="a finished run (runs/micro), or released results (figures)")
    parser.add_argument("out", type=Path, help="folder for the crate; the source itself: without copies")


def run(options: argparse.Namespace) -> None:
    """Write the crate, and print where it is."""
    path = write(options.source, options.out)
    size = size_of(path.parent.rglob("*"))
    print(f"The crate is ready: {path} ({size:.1f} MB). `make check KIND=crate ARGS={path.parent}` validates it.")
