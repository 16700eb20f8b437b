"""Build `.venv-crate`, where crates are validated (scripts/validate_crate.py), unless it is there and up to date.

roc-validator wants older releases of rich and others than the study's pins.
"""

import apart

VALIDATOR = "roc-validator==0.13.0"

if __name__ == "__main__":
    apart.bring_up(".venv-crate", [VALIDATOR, *apart.pinned(("rocrate",))])
