"""The local analyser: plausible answers within the limits, marked as its own."""

from datetime import UTC, datetime

from agents.local.analyser import LOCAL_MODEL, LocalAnalyser, LocalInsights
from schemas.insight import MAX_SUMMARY_CHARS, MAX_TOPICS, Usage

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def test_an_answer_names_the_local_model_and_is_free() -> None:
    """It cannot be mistaken for one of Grok's."""
    answer = await LocalAnalyser(now=lambda: NOW).analyse("I love this")
    assert (answer.model, answer.usage, answer.analysed_at) == (LOCAL_MODEL, Usage(), NOW)
    assert answer.insight.confidence < 0.5


def test_a_complaint_is_read_as_one() -> None:
    """Sentiment, topics, intent, urgency and summary of a clear case."""
    insight = LocalInsights().insight("My parcel never arrived, this is terrible. I want a refund immediately!")
    assert (insight.sentiment, insight.intent, insight.urgency) == ("negative", "request_refund", "high")
    assert {"delivery", "refund"} <= set(insight.topics)
    assert insight.summary == "My parcel never arrived, this is terrible."
    assert insight.action_needed


def test_staff_messages_do_not_change_the_customers_sentiment() -> None:
    """Only customer messages are scored, and roles are not read as topics."""
    insight = LocalInsights().insight("user: this is awful, I hate it\nagent: Great! Wonderful, thank you so much!")
    assert insight.sentiment == "negative"
    assert "staff" not in insight.topics


def test_language_is_und_unless_the_text_is_english() -> None:
    """`und` is BCP 47 for undetermined."""
    insights = LocalInsights()
    assert insights.insight("the parcel that you sent to me is broken").language == "en"
    assert insights.insight("Mein Paket ist leider nicht angekommen").language == "und"


def test_every_text_keeps_to_the_limits() -> None:
    """Empty, foreign and huge texts neither fail nor exceed a limit."""
    for text in ("", "退款", "\n", "refund account login outage bug order flight " * 3_000, "x" * 100_000):
        insight = LocalInsights().insight(text)
        assert len(insight.summary) <= MAX_SUMMARY_CHARS
        assert len(insight.topics) <= MAX_TOPICS
        assert -1 <= insight.sentiment_score <= 1


def test_the_version_is_the_same_in_every_process() -> None:
    """Cached answers are found after a restart."""
    assert LocalAnalyser().version == LocalAnalyser().version
    assert len(LocalAnalyser().version) == 16
