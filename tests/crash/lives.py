"""The test's end of tests.crash.zygote: starts worker processes and learns how they ended."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from tests.support.processes import ROOT


class Lives:
    """Use as an async context manager: with it every life ends."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._numbers = count(1)
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._is_ready = asyncio.Event()

    async def __aenter__(self) -> "Lives":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.crash.zygote"),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._listener = asyncio.create_task(self._listen())
        async with asyncio.timeout(60):
            await self._is_ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listener

    def start(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        log: Path,
        point: str | None = None,
        nth: int = 0,
    ) -> "Life":
        """Starts a worker; with a point, one that ends right after the point's nth occurrence."""
        life = Life(self, next(self._numbers))
        ended = self._ends[life.number] = asyncio.get_running_loop().create_future()
        life.ended = ended
        order = {"folder": str(folder), "settings": dict(settings), "log": str(log), "point": point}
        self.order({**order, "do": "start", "number": life.number, "nth": nth})
        return life

    def order(self, order: Mapping[str, object]) -> None:
        """Sends one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            if "ready" in report:
                self._is_ready.set()
            else:
                self._ends.pop(report["number"]).set_result(report["code"])


class Life:
    """One process; `ended` becomes its exit code, negative for a signal."""

    ended: asyncio.Future[int]

    def __init__(self, lives: Lives, number: int) -> None:
        self._lives = lives
        self.number = number

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if not self.ended.done():
            self._lives.order({"do": "kill", "number": self.number})
        await self.ended
