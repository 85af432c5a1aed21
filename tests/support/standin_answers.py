"""The stand-in's answers, for tests that compare them with the rows."""

import json

from schemas.insight import Insight
from streams.dev.standin.completions import Answerer


class StandinAnswers:
    """Returns the stand-in's answer to each text, parsed independently of the worker under test."""

    def __init__(self) -> None:
        self._answerer = Answerer()

    def insight(self, text: str) -> Insight:
        """Returns the insight in the stand-in's answer."""
        completion = self._answerer.completion("", text, "standin", None).body
        content = json.loads(json.loads(completion)["choices"][0]["message"]["content"])
        return Insight(**{**content, "topics": tuple(content["topics"])})
