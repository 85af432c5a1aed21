"""The local analyser: plausible, honest about itself, bounded."""

from datetime import UTC, datetime

from agents.local import LOCAL_MODEL, LocalAnalyser, LocalInsights
from schemas.insight import MAX_SUMMARY_CHARS, MAX_TOPICS, Usage

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def test_an_answer_names_its_maker_and_is_free() -> None:
    """Nobody can take it for Grok's."""
    answer = await LocalAnalyser(now=lambda: NOW).analyse("I love this")
    assert (answer.model, answer.usage, answer.analysed_at) == (LOCAL_MODEL, Usage(), NOW)
    assert answer.insight.confidence < 0.5


def test_a_complaint_is_read_as_one() -> None:
    """Sentiment, topics, intent, urgency and summary of a plain case."""
    insight = LocalInsights().insight("My parcel never arrived, this is terrible. I want a refund immediately!")
    assert (insight.sentiment, insight.intent, insight.urgency) == ("negative", "request_refund", "high")
    assert {"delivery", "refund"} <= set(insight.topics)
    assert insight.summary == "My parcel never arrived, this is terrible."
    assert insight.action_needed


def test_the_staffs_courtesy_is_not_the_customers_mood() -> None:
    """Only what the customer says is scored, and roles are no topics."""
    insight = LocalInsights().insight("user: this is awful, I hate it\nagent: Great! Wonderful, thank you so much!")
    assert insight.sentiment == "negative"
    assert "staff" not in insight.topics


def test_language_is_only_named_where_it_is_known() -> None:
    """`und` is BCP 47 for undetermined."""
    insights = LocalInsights()
    assert insights.insight("the parcel that you sent to me is broken").language == "en"
    assert insights.insight("Mein Paket ist leider nicht angekommen").language == "und"


def test_every_text_keeps_to_the_limits() -> None:
    """Empty, foreign, huge: nothing fails, nothing is longer than allowed."""
    for text in ("", "退款", "\n", "refund account login outage bug order flight " * 3_000, "x" * 100_000):
        insight = LocalInsights().insight(text)
        assert len(insight.summary) <= MAX_SUMMARY_CHARS
        assert len(insight.topics) <= MAX_TOPICS
        assert -1 <= insight.sentiment_score <= 1


def test_the_version_is_the_same_in_every_process() -> None:
    """Kept answers are found again after a restart."""
    assert LocalAnalyser().version == LocalAnalyser().version
    assert len(LocalAnalyser().version) == 16
