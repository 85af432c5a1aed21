"""`python -m tests.chaos.buggy_worker BUG` runs `grok-insights worker` with one planted bug."""

import sys

from streams import cli
from tests.chaos.planted_bugs import BUGS


def main(arguments: list[str]) -> None:
    """Exit codes are those of `grok-insights worker`; 2, with the list of bugs, for a name that is not one of them."""
    if len(arguments) != 1 or arguments[0] not in BUGS:
        sys.stderr.write("usage: python -m tests.chaos.buggy_worker BUG, where BUG is one of\n")
        sys.stderr.writelines(f"  {bug.name}: {bug.story}\n" for bug in BUGS.values())
        sys.exit(2)
    BUGS[arguments[0]].patch()
    sys.argv = ["grok-insights", "worker"]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1:])
