"""Build `.venv-deepspeed`, the environment of `make check KIND=sharded`, when it is missing, unfinished or stale.

It is the study's own and DeepSpeed, which nobody needs who trains in one process or by DDP.
"""

import apart
import bootstrap

DEEPSPEED = "deepspeed==0.19.8"

if __name__ == "__main__":
    pins = bootstrap.pins((bootstrap.ROOT / "constraints.txt").read_text(encoding="utf-8"))
    apart.bring_up(".venv-deepspeed", [DEEPSPEED, *pins])
