"""`python -m streams.preload COMMAND`: loads a command's code, waits for its environment, then runs it.

The local stack starts its servers this way, so that they load while the broker and Postgres start.
"""

import os
import sys
from importlib import import_module

import orjson

from streams.cli import main


def run() -> None:
    """Reads the environment from standard input, as JSON; ends without it when the stack has ended."""
    import_module(f"streams.commands.{sys.argv[1]}")
    environment = sys.stdin.buffer.read()
    if environment:
        os.environ.clear()
        os.environ.update(orjson.loads(environment))
        main()


if __name__ == "__main__":
    run()
