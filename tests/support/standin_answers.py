"""The answers of the stand-in for the Grok API, for tests that check what became of them."""

from agents.grok.reply import read_reply
from schemas.insight import Insight
from streams.dev.standin.completions import Answerer


class StandinAnswers:
    """The same text always gets the same answer."""

    def __init__(self) -> None:
        self._answerer = Answerer()

    def insight(self, text: str) -> Insight:
        """What a worker makes of the stand-in's answer."""
        return read_reply(self._answerer.completion("", text, "standin", None).body).insight
