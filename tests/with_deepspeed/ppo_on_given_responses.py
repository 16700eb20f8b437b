"""tests/ppo_in_processes.py where processes take the place of GPUs: `accelerate launch ... WORK`."""

import sys
from pathlib import Path

import ppo_in_processes

from tests.with_deepspeed import sharing

sharing.take_processes_for_gpus()
sharing.tell_after_steps()
ppo_in_processes.run(Path(sys.argv[1]))
