"""Judges the local analyser against labels set by hand. `python -m tests.quality.evaluation` prints the figures."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

from agents.local.analyser import LocalInsights
from agents.prefilter.small_talk import is_small_talk
from agents.text_key import canonical_text
from schemas.conversation import Conversation
from schemas.insight import Insight, Sentiment, Urgency

LABELS = Path(__file__).with_name("labels.jsonl")
#: See SOURCES.md: rows to tune the rules on, rows set apart before, and rows drawn and labelled after the rules.
Part = Literal["tuned", "held_out", "fresh"]
_MATTERS = frozenset({"high", "critical"})


class Label(msgspec.Struct, frozen=True):
    """A conversation with the values that are right for it, of which several may be.

    The summary is right if it holds one of `telling`. A row of one sentence has none: any summary of it would be right.
    """

    id: str
    source: str
    sentiment: tuple[Sentiment, ...]
    intent: tuple[str, ...]
    urgency: Urgency
    action_needed: bool
    language: str
    part: Part
    text: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    telling: tuple[str, ...] = ()

    @property
    def canonical(self) -> str:
        """The text that the analyser reads."""
        content = {"text": self.text} if self.messages is None else {"messages": self.messages}
        return canonical_text(msgspec.convert({"id": self.id, **content}, Conversation))


class Share(NamedTuple):
    """`hits` of `total`."""

    hits: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.hits / self.total

    def __str__(self) -> str:
        return f"{self.hits} of {self.total} ({self.percent:.0f} %)"


def read_labels(part: Part | None = None) -> list[Label]:
    """Returns the rows of one part, or all."""
    labels = [msgspec.json.decode(line, type=Label) for line in LABELS.read_bytes().splitlines()]
    return [label for label in labels if part in (None, label.part)]


def judge(labels: Iterable[Label], insight: Callable[[str], Insight]) -> dict[str, Share]:
    """Returns how many rows are right, by field; "urgency that matters" is high or critical."""
    pairs = [(label, insight(label.canonical)) for label in labels]
    matters = [is_urgent(found.urgency) for label, found in pairs if is_urgent(label.urgency)]
    calm = [is_urgent(found.urgency) for label, found in pairs if label.urgency == "low"]
    summaries = [found.summary.lower() for label, found in pairs if label.telling]
    telling = [label.telling for label, _ in pairs if label.telling]
    return {
        "sentiment": _share(found.sentiment in label.sentiment for label, found in pairs),
        "intent": _share(found.intent in label.intent for label, found in pairs),
        "urgency": _share(found.urgency == label.urgency for label, found in pairs),
        "urgency that matters": _share(matters),
        "low rated as urgent": _share(calm),
        "action_needed": _share(found.action_needed == label.action_needed for label, found in pairs),
        "summary": _share(
            any(part in summary for part in parts) for parts, summary in zip(telling, summaries, strict=True)
        ),
        "summary is a greeting": _share(says_nothing(found.summary, label.canonical) for label, found in pairs),
        "language": _share(found.language == label.language for label, found in pairs),
    }


def is_urgent(urgency: Urgency) -> bool:
    """Returns whether a person should look at once."""
    return urgency in _MATTERS


def says_nothing(summary: str, text: str) -> bool:
    """Returns whether it is a courtesy, or one or two words of a text that has more to say."""
    return is_small_talk(summary) or (len(summary.split()) < 3 <= len(text.split()))


def _share(hits: Iterable[bool]) -> Share:
    counted = list(hits)
    return Share(sum(counted), len(counted))


def main() -> None:
    """Prints a Markdown table, and the time for a text."""
    insight = LocalInsights().insight
    parts = [judge(read_labels(part), insight) for part in get_args(Part)]
    print("| field | tuned on | held out | fresh |\n|---|---|---|---|")
    for field in parts[0]:
        print(f"| {field} | {' | '.join(str(shares[field]) for shares in parts)} |")
    texts = [label.canonical for label in read_labels()]
    best_s = min(_timed(insight, texts) for _ in range(5))
    print(f"{best_s / len(texts) * 1e6:.0f} us a text of {sum(map(len, texts)) / len(texts):.0f} characters on average")


def _timed(insight: Callable[[str], Insight], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        insight(text)
    return time.process_time() - began


if __name__ == "__main__":
    main()
