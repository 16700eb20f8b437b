"""Check crates with the validator of RO-Crate, without a network: `make check KIND=crate ARGS=build/crate`.

It needs `roc-validator`, which wants other releases than the study's pins: scripts/crate_environment.py builds
`.venv-crate` for it. The validator fetches the contexts that a crate names. Here it gets them from this file instead:
RO-Crate's, as ro-crate-py ships it with the terms that version 1.1 writes otherwise, and that of workflow runs.
"""

import json
import sys
from pathlib import Path

import requests
import rocrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

PROFILES = ("ro-crate-1.1", "process-run-crate", "workflow-run-crate")
BIOSCHEMAS = "https://bioschemas.org/"
TERMS_OF_1_1 = {
    "ComputationalWorkflow": BIOSCHEMAS + "ComputationalWorkflow",
    "FormalParameter": BIOSCHEMAS + "FormalParameter",
    "input": BIOSCHEMAS + "ComputationalWorkflow#input",
    "output": BIOSCHEMAS + "ComputationalWorkflow#output",
}
RUNS = "https://w3id.org/ro/terms/workflow-run"
TERMS_OF_RUNS = {
    name: f"{RUNS}#{name}"
    for name in (
        *("sha1", "sha256", "md5", "environment", "resourceUsage", "containerImage", "ContainerImage"),
        *("connection", "ParameterConnection", "sourceParameter", "targetParameter", "tag", "registry"),
    )
}


def contexts():
    """The contexts by the beginning of their addresses."""
    shipped = json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text(encoding="utf-8"))
    shipped["@context"] |= TERMS_OF_1_1
    return {"https://w3id.org/ro/crate/1.1/context": shipped, f"{RUNS}/context": {"@context": TERMS_OF_RUNS}}


def answer(url, **_):
    """What comes instead of the network's answer: a context that is known, else 404."""
    found = next((body for start, body in contexts().items() if str(url).startswith(start)), None)
    response = requests.Response()
    response.status_code, response.url = 200 if found else 404, str(url)
    response.headers["Content-Type"] = "application/ld+json"
    response._content = json.dumps(found or {}).encode()
    return response


def issues_of(crate, profile, severity="REQUIRED"):
    """The issues of a crate by a profile, a line each."""
    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier=profile,
        requirement_severity=models.Severity[severity],
        disable_remote_crate_download=True,
    )
    found = services.validate(settings).get_issues()
    return sorted({f"{one.severity.name} {one.check.identifier}: {one.message}" for one in found})


def offline():
    """Have the validator's one requester ask `answer` alone."""
    requester = HttpRequester()
    requester.get = answer
    HttpRequester.reset = classmethod(lambda cls: None)
    HttpRequester.initialize_cache = classmethod(lambda cls, *args, **kwargs: requester)


def main(words):
    """Check each crate by each profile; 1 where an issue was found, 2 for a folder that is no crate."""
    words = words or ["build/crate"]
    for word in words:
        if not (Path(word) / "ro-crate-metadata.json").is_file():
            print(f"{word} holds no crate: `make crate` writes one to build/crate.", file=sys.stderr)
            return 2
    offline()
    failed = False
    for word in words:
        for profile in PROFILES:
            found = issues_of(word, profile)
            failed |= bool(found)
            print(f"{word}: {profile}: {len(found)} issues", *found, sep="\n  ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
