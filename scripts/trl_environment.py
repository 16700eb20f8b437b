"""Build `.venv-trl`, where `make bench` runs the last PPOTrainer that TRL had, when it is missing, unfinished or stale.

TRL has no PPO since 1.13.0, so release 1.12.0 lives apart; all else has the study's pins, so that a comparison is of
the trainers alone. Standard library only, like bootstrap.py, whose lock, stamp and log it uses.
"""

import subprocess
import sys

import bootstrap

TRL = "trl==1.12.0"
SAME_AS_THE_STUDY = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "pandas")


def requirements():
    """What pip is asked for."""
    pins = dict(pin.split("==") for pin in bootstrap.pins((bootstrap.ROOT / "constraints.txt").read_text()))
    return [TRL, *(f"{name}=={pins[name]}" for name in SAME_AS_THE_STUDY)]


def build(wanted):
    """Make the environment anew, install, and stamp it."""
    import venv

    bootstrap.STAMP.unlink(missing_ok=True)
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(bootstrap.VENV)
    bootstrap.pip("install", *requirements())
    bootstrap.STAMP.write_text(wanted)


def main():
    """Bring `.venv-trl` up to date."""
    bootstrap.VENV = bootstrap.ROOT / ".venv-trl"
    bootstrap.STAMP = bootstrap.VENV / ".stamp"
    with bootstrap.only_one():
        wanted = " ".join([*requirements(), sys.version, str(bootstrap.VENV)])
        if not bootstrap.up_to_date(wanted):
            print("Building .venv-trl (2 to 10 minutes; .venv-trl/pip-install.log grows) ...", flush=True)
            build(wanted)
            print(".venv-trl is ready.", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, KeyboardInterrupt):
        sys.exit("Building .venv-trl was not finished (pip's last lines are above); the next make starts it anew.")
