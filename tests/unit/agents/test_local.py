"""The local analyser: plausible answers within the limits, marked as its own, by rules that each have a case here."""

import time
from datetime import UTC, datetime

import pytest

from agents.local.analyser import LOCAL_MODEL, LocalAnalyser, LocalInsights
from agents.local.vocabulary import GRAVE_INTENTS, GRAVE_URGENCIES, INTENT_BLAMES, INTENTS
from schemas.insight import MAX_SUMMARY_CHARS, MAX_TOPICS, Sentiment, Urgency, Usage

NOW = datetime(2026, 1, 2, tzinfo=UTC)
#: What is read of a text is bounded; this is many times as much.
HUGE_CHARS = 200_000


@pytest.fixture(scope="module")
def insights() -> LocalInsights:
    return LocalInsights()


async def test_an_answer_names_the_local_model_and_is_free() -> None:
    """It cannot be mistaken for one of Grok's."""
    answer = await LocalAnalyser(now=lambda: NOW).analyse("I love this")
    assert (answer.model, answer.usage, answer.analysed_at) == (LOCAL_MODEL, Usage(), NOW)
    assert answer.insight.confidence < 0.5


def test_a_complaint_is_read_as_one(insights: LocalInsights) -> None:
    """Sentiment, topics, intent, urgency and summary of a clear case."""
    insight = insights.insight("My parcel never arrived, this is terrible. I want a refund immediately!")
    assert (insight.sentiment, insight.intent, insight.urgency) == ("negative", "request_refund", "high")
    assert {"delivery", "refund"} <= set(insight.topics)
    assert insight.summary == "I want a refund immediately!"
    assert insight.action_needed


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("This is great", "positive"),
        ("This is not great", "negative"),
        ("I don't think this is good", "negative"),
        ("I can't say I'm impressed", "negative"),
        ("I have not been disappointed, not bad at all", "positive"),
        ("no problem, everything is as ordered", "neutral"),
        ("My order never arrived", "negative"),
        ("I cannot log in to my account", "negative"),
        ("Thanks for your help, please call me, have a nice day", "neutral"),
        ("We had a wonderful day", "positive"),
        ("The screen is beautiful but the battery is terrible", "negative"),
        ("I love the camera. I hate the sound.", "mixed"),
        ("Is there a better plan for me?", "neutral"),
        ("😡😡😡😡", "negative"),
        ("👎👎👎👎👎", "negative"),
        ("⭐⭐⭐⭐⭐", "positive"),
    ],
)
def test_sentiment_knows_negation_courtesy_and_plain_reports(
    insights: LocalInsights, text: str, sentiment: Sentiment
) -> None:
    """A negation turns the words behind it, courtesy does not count as praise, and a reported fault is blame even
    without harsh words."""
    assert insights.insight(text).sentiment == sentiment


def test_staff_messages_do_not_change_the_customers_sentiment(insights: LocalInsights) -> None:
    """Only customer messages are scored, and roles are not read as topics."""
    insight = insights.insight("user: this is awful, I hate it\nagent: Great! Wonderful, thank you so much!")
    assert insight.sentiment == "negative"
    assert "staff" not in insight.topics


def test_the_last_messages_weigh_more(insights: LocalInsights) -> None:
    """The same two sentences in both orders: the last one shows how things went."""
    happy, angry = "user: this is wonderful", "user: this is terrible"
    better, worse = (insights.insight(f"{first}\n{last}") for first, last in ((angry, happy), (happy, angry)))
    assert better.sentiment_score > worse.sentiment_score


@pytest.mark.parametrize(
    ("text", "intent", "urgency"),
    [
        ("I am going to end my life", "report_danger", "critical"),
        ("I don't want to live any more", "report_danger", "critical"),
        ("Your heater caught fire and my son was injured", "report_danger", "critical"),
        ("There is a strong gas leak in my kitchen", "report_danger", "critical"),
        ("You will hear from my lawyer", "threaten_legal_action", "critical"),
        ("I will sue you if you don't refund me", "threaten_legal_action", "critical"),
        ("Someone has just withdrawn money, someone took $300 from my account", "report_fraud", "high"),
        ("I lost my debit card yesterday", "report_loss", "high"),
        ("I was charged twice and want my money back", "request_refund", "high"),
        ("You charged me for it twice, please refund it", "request_refund", "high"),
        ("I need to speak to someone right now", "request_service", "high"),
        ("I need this report NOW", "request_service", "high"),
        ("The app crashes all the time", "report_problem", "medium"),
        ("Where is my order?", "ask_status", "low"),
        ("I would like to book a table for two", "make_booking", "low"),
        ("Please change my address", "request_change", "low"),
        ("This is not an emergency and not fraud, I only have a question", "inform", "low"),
        ("I am the happiest girl in the world right now", "give_praise", "medium"),
    ],
)
def test_phrases_tell_intent_and_urgency(insights: LocalInsights, text: str, intent: str, urgency: Urgency) -> None:
    """Life and law come first; the words of a phrase need not stand side by side; a negated word does not count."""
    insight = insights.insight(text)
    assert (insight.intent, insight.urgency) == (intent, urgency)
    assert insight.action_needed or urgency in ("low", "medium")


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("user: Hello\nagent: How can I help?\nuser: my router is broken\nuser: bye", "my router is broken"),
        (
            "user: HEY HO!\nuser: I want to know when my code expires.\nuser: Thanks",
            "I want to know when my code expires.",
        ),
        (
            "Hi there. I saw Dr. Miller today. I feel sick and need an appointment.",
            "I feel sick and need an appointment.",
        ),
        ("user: Yes\nuser: 4 pm\nuser: Ben", "4 pm Ben"),
    ],
)
def test_the_summary_quotes_the_most_telling_sentence(insights: LocalInsights, text: str, summary: str) -> None:
    """No greeting, however the conversation begins; titles end no sentence; scraps are put together."""
    assert insights.insight(text).summary == summary


def test_a_long_summary_ends_with_a_word(insights: LocalInsights) -> None:
    """It keeps to the limit, and an ellipsis says that it was cut."""
    summary = insights.insight("package broken " * 100).summary
    assert len(summary) <= MAX_SUMMARY_CHARS
    assert summary.endswith((" package…", " broken…"))


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("user: my router is broken", True),
        ("user: my router is broken\nagent: I sent a new one.\nuser: Thanks!", False),
        ("user: my router is broken\nagent: I sent a new one.\nuser: It has not arrived yet", True),
        ("user: my card was stolen\nagent: Noted. Goodbye.", True),
        ("the best phone I ever had", False),
    ],
)
def test_action_is_needed_until_staff_has_answered(insights: LocalInsights, text: str, needed: bool) -> None:
    """What is urgent needs it all the same."""
    assert insights.insight(text).action_needed is needed


@pytest.mark.parametrize(
    "text",
    [
        "Mein Paket ist leider nicht angekommen",
        "¿Dónde está mi pedido? Llevo dos semanas esperando",
        "Je suis très déçu de votre service",
        "Quero cancelar a minha assinatura",
        "Где мой заказ?",
        "退款",
    ],
)
def test_another_language_is_undetermined(insights: LocalInsights, text: str) -> None:
    """`und` is BCP 47 for undetermined. Neutral would be a claim; a person must read it."""
    insight = insights.insight(text)
    assert (insight.sentiment, insight.intent, insight.language) == ("undetermined", "undetermined", "und")
    assert insight.confidence <= 0.1
    assert insight.action_needed


def test_english_is_known_in_short_and_long_texts(insights: LocalInsights) -> None:
    """Also where people write it badly."""
    for text in ("the parcel that you sent to me is broken", "love it", "refund pls", "Hello"):
        assert insights.insight(text).language == "en"


def test_every_text_keeps_to_the_limits(insights: LocalInsights) -> None:
    """Empty, foreign and huge texts neither fail nor exceed a limit."""
    for text in (
        "",
        "退款",
        "\n",
        "user: \nuser: ",
        "refund account login outage bug order flight " * 3_000,
        "x" * 100_000,
    ):
        insight = insights.insight(text)
        assert len(insight.summary) <= MAX_SUMMARY_CHARS
        assert len(insight.topics) <= MAX_TOPICS
        assert -1 <= insight.sentiment_score <= 1


@pytest.mark.parametrize("part", ["not ", "someone ", "😡", "a.", ". ", "great but ", "have a good day ", "user: hi\n"])
def test_no_text_takes_long(insights: LocalInsights, part: str) -> None:
    """What is read is bounded, and so is the work for a word: the worst known text takes 50 ms of CPU time."""
    text = part * (HUGE_CHARS // len(part))
    began = time.process_time()
    insights.insight(text)
    assert time.process_time() - began < 1


def test_the_end_of_a_long_text_is_read(insights: LocalInsights) -> None:
    """It shows how things went, and may hold what matters most."""
    assert insights.insight("all is as it was. " * 2_000 + "I want to kill myself").urgency == "critical"


def test_every_grave_intent_has_an_urgency_and_a_blame() -> None:
    """A table that lacks one would read it as low and neutral."""
    assert GRAVE_INTENTS.keys() == GRAVE_URGENCIES.keys()
    assert GRAVE_INTENTS.keys() <= INTENT_BLAMES.keys() <= GRAVE_INTENTS.keys() | INTENTS.keys()


def test_the_version_is_the_same_in_every_process() -> None:
    """Cached answers are found after a restart."""
    assert LocalAnalyser().version == LocalAnalyser().version
    assert len(LocalAnalyser().version) == 16
