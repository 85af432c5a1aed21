"""`python -m tests.e2e.forgetful_worker`: a worker whose Faust loses every record when it hands it out first."""

import sys

from faust.types import TP, EventT

from streams import cli
from tests.chaos.lossy_stream import lose_records


def main() -> None:
    """As `grok-insights worker`."""
    handed_out: set[tuple[TP, int]] = set()

    def is_lost(event: EventT[bytes]) -> bool:
        place = event.message.tp, event.message.offset
        is_first = place not in handed_out
        handed_out.add(place)
        return is_first

    lose_records(is_lost)
    sys.argv = ["grok-insights", "worker"]
    cli.main()


if __name__ == "__main__":
    main()
