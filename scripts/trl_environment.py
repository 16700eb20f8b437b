"""Build `.venv-trl`, where `make bench` runs the last PPOTrainer that TRL had, when it is missing, unfinished or stale.

TRL has no PPO since 1.13.0, so release 1.12.0 lives apart; all else has the study's pins, so that a comparison is of
the trainers alone.
"""

import apart

TRL = "trl==1.12.0"
SAME_AS_THE_STUDY = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "pandas")

if __name__ == "__main__":
    apart.bring_up(".venv-trl", [TRL, *apart.pinned(SAME_AS_THE_STUDY)])
