"""Build `.venv-crate`, where crates, CITATION.cff and its kin are validated, unless it is there and up to date.

roc-validator and cffconvert want older releases of rich and jsonschema than the study's pins.
"""

import apart

VALIDATORS = ("roc-validator==0.13.0", "cffconvert==2.0.0", "setuptools<80")  # cffconvert imports pkg_resources

if __name__ == "__main__":
    apart.bring_up(".venv-crate", [*VALIDATORS, *apart.pinned(("rocrate",))])
