"""The record of chaos runs, a file that `make chaos` itself writes: long passing runs, and the proof."""

import json
from pathlib import Path
from typing import Any

from tests.chaos.proof import Proof

RECORD = Path(__file__).with_name("record.json")


def record_run(path: Path, seed: int, summary: str) -> None:
    """Adds a long run that passed."""
    _add(path, "runs", str(seed), summary)


def record_proof(path: Path, seed: int, proof: Proof) -> None:
    """Replaces what was found of this bug before; `none` is the control, a worker without a bug."""
    found = {"seed": seed, "rounds": proof.rounds, "found": proof.findings, "is_right": proof.is_right}
    _add(path, "proof", proof.bug or "none", {"story": proof.story, **found})


def _add(path: Path, section: str, name: str, value: Any) -> None:
    record = json.loads(path.read_text()) if path.exists() else {}
    record.setdefault(section, {})[name] = value
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
