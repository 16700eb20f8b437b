"""codemeta.json and .zenodo.json, from CITATION.cff and pyproject.toml: a part of `python -m rdlib documents`.

CITATION.cff, which a person edits, has title, authors, licence and keywords; pyproject.toml has the Python and the
packages that are needed. Software registries read codemeta.json (CodeMeta 3.0), and Zenodo reads .zenodo.json when it
archives a release.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

CITATION, PROJECT = "CITATION.cff", "pyproject.toml"
CONTEXT = "https://w3id.org/codemeta/3.0"
SPDX = "https://spdx.org/licenses/"


def files(root: Path) -> dict[Path, str]:
    """The text of both files; none where there is no CITATION.cff."""
    if not (root / CITATION).is_file():
        return {}
    cited = yaml.safe_load((root / CITATION).read_text(encoding="utf-8"))
    project = tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))["project"]
    found = {"codemeta.json": codemeta(cited, project), ".zenodo.json": zenodo(cited)}
    return {root / name: json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in found.items()}


def codemeta(cited: dict[str, Any], project: dict[str, Any]) -> dict[str, Any]:
    """The software as CodeMeta describes it."""
    return {
        "@context": CONTEXT,
        "@type": "SoftwareSourceCode",
        "name": cited["title"],
        "alternateName": project["name"],
        "description": _line(cited["abstract"]),
        "author": [_person(one) for one in cited["authors"]],
        "version": str(cited["version"]),
        "dateModified": str(cited["date-released"]),
        "license": SPDX + cited["license"],
        "keywords": cited["keywords"],
        "programmingLanguage": {"@type": "ComputerLanguage", "name": "Python", "version": project["requires-python"]},
        "operatingSystem": "Linux",
        "softwareRequirements": [_package(text) for text in project["dependencies"]],
        "referencePublication": [_article(one) for one in cited["references"]],
    }


def zenodo(cited: dict[str, Any]) -> dict[str, Any]:
    """The record that Zenodo makes of a release."""
    papers = [name["value"] for one in cited["references"] for name in one["identifiers"]]
    related = {"relation": "isDerivedFrom", "resource_type": "publication-preprint"}
    return {
        "upload_type": "software",
        "title": cited["title"],
        "description": _line(cited["abstract"]),
        "creators": [_creator(one) for one in cited["authors"]],
        "version": str(cited["version"]),
        "publication_date": str(cited["date-released"]),
        "license": cited["license"],
        "keywords": cited["keywords"],
        "related_identifiers": [{"identifier": paper, **related} for paper in papers],
    }


def _line(text: str) -> str:
    return " ".join(text.split())


def _person(one: dict[str, str]) -> dict[str, str]:
    """An author: a person by both names, or an organization."""
    if "family-names" not in one:
        return {"@type": "Organization", "name": one["name"]}
    found = {"@type": "Person", "givenName": one["given-names"], "familyName": one["family-names"]}
    return {"@id": one["orcid"], **found} if "orcid" in one else found


def _creator(one: dict[str, str]) -> dict[str, str]:
    if "family-names" not in one:
        return {"name": one["name"]}
    found = {"name": f"{one['family-names']}, {one['given-names']}"}
    return found | ({"orcid": one["orcid"].rpartition("/")[2]} if "orcid" in one else {})


def _package(text: str) -> dict[str, str]:
    """A requirement such as "torch>=2.13"."""
    name, version = re.fullmatch(r"([\w.-]+)(.*)", text).groups()
    return {"@type": "SoftwareApplication", "name": name, "version": version}


def _article(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "ScholarlyArticle",
        "name": one["title"],
        "url": one["url"],
        "datePublished": str(one["year"]),
        "author": [_person(author) for author in one["authors"]],
    }
