"""The answers of the stand-in for the Grok API, for tests that check what became of them."""

import json

from schemas.insight import Insight
from streams.dev.standin.completions import Answerer


class StandinAnswers:
    """The same text always gets the same answer. Read by other code than the worker's, which is under test."""

    def __init__(self) -> None:
        self._answerer = Answerer()

    def insight(self, text: str) -> Insight:
        """The insight in the stand-in's answer."""
        completion = self._answerer.completion("", text, "standin", None).body
        content = json.loads(json.loads(completion)["choices"][0]["message"]["content"])
        return Insight(**{**content, "topics": tuple(content["topics"])})
