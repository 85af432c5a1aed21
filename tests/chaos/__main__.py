"""Hurts the whole service at random and judges what became of every conversation.

Ends with one line of figures; exits with 1 when anything is wrong or when the faults did not really happen.
"""

import argparse
import functools
import logging
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.planted_bugs import BUGS
from tests.chaos.proof import CONTROLS, prove_all
from tests.chaos.rounds import Plan, run_rounds

say = functools.partial(print, flush=True)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of faults, about a minute each")
    parser.add_argument("--seed", type=int, default=None, help="seed of faults and texts; a new one when unset")
    parser.add_argument("--ids", type=int, default=7_500, help="conversations in each round, at least")
    parser.add_argument("--worlds", type=int, default=2, help="worlds side by side; one serves three rounds")
    parser.add_argument("--folder", type=Path, default=None, help="for logs and data; a temporary one when unset")
    parser.add_argument(
        "--prove", nargs="*", choices=BUGS, metavar="BUG", help=f"plant bugs instead, all or these: {', '.join(BUGS)}"
    )
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that do not answer are the point
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="grok-insights-chaos-"))
    say(f"seed {seed}, logs in {folder}")
    if arguments.prove is not None:
        proofs = prove_all(folder, seed, arguments.prove or (*CONTROLS, *BUGS), arguments.worlds, say)
        return 0 if all(proof.is_right for proof in proofs) else 1
    plan = Plan(seed, arguments.rounds, arguments.ids, worlds_at_once=arguments.worlds)
    total = run_rounds(folder, plan, say)
    for absent in total.did_not_happen:
        say(f"did not happen: {absent}")
    say(f"also: {', '.join(f'{name}={count}' for name, count in sorted(total.figures.items()))}")
    say(total.summary)
    return 1 if total.violations or total.did_not_happen else 0


if __name__ == "__main__":
    sys.exit(main())
