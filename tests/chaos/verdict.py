"""The verdict: violations with a few examples each, and figures that show what happened."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

#: Counts that must be 0. The first five are in the summary line, the others are printed when they are not 0.
VIOLATIONS = (
    "missing",
    "invented",
    "corrupted",
    "duplicate_rows",
    "commits_past_unfinished",
    "commits_moved_back",
    "paid_again",
    "delivered_before_kept",
    "unbalanced",
    "refused_though_all_was_well",
    "stops_too_slow",
    "ended_by_itself",
    "swallowed_defect",
)
_EXAMPLES = 5


@dataclass
class Verdict:
    """`figures` are counts that are neither good nor bad."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    figures: Counter[str] = field(default_factory=Counter)

    def violation(self, name: str, example: str) -> None:
        """Adds a violation."""
        assert name in VIOLATIONS, name
        self.counts[name] += 1
        if len(self.examples[name]) < _EXAMPLES:
            self.examples[name].append(example)

    @property
    def is_green(self) -> bool:
        return not self.counts.total()

    def lines(self) -> list[str]:
        """The violations for a person, with examples."""
        return [
            f"{name}: {self.counts[name]}, such as {'; '.join(self.examples[name])}"
            for name in VIOLATIONS
            if self.counts[name]
        ]
