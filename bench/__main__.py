"""Command line: `python -m bench [PART ...] [--rounds N] [--quick]`; see bench/__init__.py for the parts."""

from __future__ import annotations

import argparse
import importlib
import sys

from bench import report
from rdlib.errors import UserError

PARTS = {
    "a": "sampling",
    "b": "ppo_update",
    "c": "whole_study",
    "d": "responses",
    "e": "warm_commands",
    "f": "vllm_overhead",
    "g": "portable",
    "h": "large_vocabulary",
    "i": "one_base",
    "j": "real_sampling",
}


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for, write their results, and print them; a part that cannot run here is skipped."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {' '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the benchmark itself; writes nothing")
    options = parser.parse_args(argv)
    unknown = set(options.parts) - set(PARTS)
    if unknown or options.rounds < 1:
        parser.error(f"the parts are {' '.join(PARTS)}, and at least one round is needed")
    for part in options.parts or PARTS:
        provenance = report.provenance(part, options.rounds)
        try:
            rows = importlib.import_module(f"bench.{PARTS[part]}").run(options.rounds, options.quick)
        except report.Skipped as reason:
            print(f"{part}: skipped. {reason}", flush=True)
            continue
        except UserError as error:
            print(f"error: {part}: {error}", file=sys.stderr)
            return 1
        for row in rows:
            print(f"{part}: {report.line(row)}", flush=True)
        if not options.quick:
            report.write(part, rows, provenance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
