"""Injects random faults into the whole service and checks what became of every conversation.

Ends with one line of figures. Exits with 1 when anything is wrong, or when the faults did not really happen.
"""

import argparse
import functools
import logging
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.planted_bugs import BUGS
from tests.chaos.proof import prove_all
from tests.chaos.record import RECORD, record_proof, record_run
from tests.chaos.rounds import ROUNDS_FOR_ALL_FAULTS, Plan, run_rounds

say = functools.partial(print, flush=True)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of faults, about a minute each")
    parser.add_argument("--seed", type=int, default=None, help="seed of faults and texts; random when unset")
    parser.add_argument("--ids", type=int, default=7_500, help="minimum number of conversations in each round")
    parser.add_argument("--worlds", type=int, default=2, help="worlds side by side, each for three rounds")
    parser.add_argument("--folder", type=Path, default=None, help="folder for logs and data; temporary when unset")
    parser.add_argument("--record", type=Path, default=RECORD, help="file that records long passing runs and the proof")
    parser.add_argument(
        "--prove",
        nargs="*",
        choices=BUGS,
        metavar="BUG",
        help=f"plant all or these bugs, and check that the judge finds them: {', '.join(BUGS)}",
    )
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that do not answer are the point
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="grok-insights-chaos-"))
    say(f"seed {seed}, logs in {folder}")
    if arguments.prove is not None:
        return _prove(folder, seed, arguments)
    plan = Plan(seed, arguments.rounds, arguments.ids, worlds_at_once=arguments.worlds)
    total = run_rounds(folder, plan, say)
    for absent in total.did_not_happen:
        say(f"did not happen: {absent}")
    say(f"also: {', '.join(f'{name}={count}' for name, count in sorted(total.figures.items()))}")
    say(total.summary)
    is_green = not (total.violations or total.did_not_happen)
    if is_green and total.rounds >= ROUNDS_FOR_ALL_FAULTS:
        record_run(arguments.record, seed, total.summary)
    return 0 if is_green else 1


def _prove(folder: Path, seed: int, arguments: argparse.Namespace) -> int:
    are_right = True
    for proof in prove_all(folder, seed, arguments.prove or (None, *BUGS), arguments.worlds):
        say(proof.as_row)
        record_proof(arguments.record, seed, proof)
        are_right = are_right and proof.is_right
    return 0 if are_right else 1


if __name__ == "__main__":
    sys.exit(main())
