"""What the judge found: violations with a few examples of each, and the figures that show that something happened."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

#: What must be 0. The first five stand in the summary line; the rest is told when it is not 0.
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
        """One more of what must not be."""
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
