"""The insights that the demo shows."""

import random

from schemas.insight import Sentiment, Urgency
from streams.demo.examples import Example, pick_examples


def example(number: int, sentiment: Sentiment, urgency: Urgency, *, summary: str = "") -> Example:
    said = summary or f"something worth a line, number {number}"
    return Example(f"c{number}", "star", sentiment, 0.0, urgency, (), "inform", said)


def test_examples_differ_in_sentiment_and_urgency() -> None:
    """Many alike do not crowd out the few others; the most urgent comes first."""
    alike = [example(number, "neutral", "low") for number in range(50)]
    picked = pick_examples([*alike, example(98, "positive", "low"), example(99, "negative", "critical")], 3)
    assert [(insight.sentiment, insight.urgency) for insight in picked] == [
        ("negative", "critical"),
        ("neutral", "low"),
        ("positive", "low"),
    ]


def test_no_summary_is_shown_twice() -> None:
    """Fewer are shown rather than the same again."""
    same = [example(number, "neutral", "low", summary="the very same sentence") for number in range(5)]
    assert len(pick_examples(same, 3)) == 1


def test_the_order_of_the_insights_does_not_matter() -> None:
    """Rows come in no order."""
    insights = [example(number, "neutral", "low") for number in range(30)]
    seed = random.randrange(2**32)
    shuffled = random.Random(seed).sample(insights, len(insights))
    assert pick_examples(shuffled, 5) == pick_examples(insights, 5), f"seed {seed}"
