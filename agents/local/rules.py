"""The local analyser's rules: what a sentence says, and what the sentences of a conversation say together. Pure."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agents.local import vocabulary
from agents.prefilter.small_talk import is_small_talk
from schemas.insight import MAX_SUMMARY_CHARS, MAX_TOPICS, Sentiment, Urgency

#: From the least urgent to the most.
_LEVELS: tuple[Urgency, ...] = ("low", "medium", "high", "critical")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])(?<!\b[dm]r\.)(?<!\bms\.)(?<!\bmrs\.) ", re.IGNORECASE)
_SHOUTED_NOW = re.compile(r"\bNOW\b")
_PICTOGRAM = re.compile("[\u2600-\u27bf\u2b50\U0001f300-\U0001faff]")
_EDGES = ".,;:!?\"'()[]{}<>*~-_`“”‘’…«»¡¿#"
#: A comma or the like: a negation does not reach across it.
_BREAK = ","
_NEGATION_REACH = 4
#: A negated word says the opposite, but less of it: "not great" is not a catastrophe, nor "not bad" praise.
_NEGATED_PRAISE, _NEGATED_BLAME = -0.75, -0.5
_PRAISE_IN_QUESTION = 0.4
#: A smiley is friendly, but it is not what the customer thinks of the matter.
_EMOTICON = 0.5
#: Sums of valences; VADER's single words reach 4.
_NEUTRAL_BELOW = 1.2
_MIXED_FROM, _MIXED_SHARE = 1.8, 0.7
#: The last sentence weighs more than the first: it tells how things went. On average a sentence weighs 1.
_FIRST_WEIGHS, _LAST_WEIGHS = 0.75, 1.25
_CRITICAL_BLAME = 2.5
#: What a sentence loses as a summary for each sentence before it: the subject comes first.
_LATER = 0.1
_MIN_WORDS = 3
#: English of more words than this has a common one.
_MAX_WORDS_WITHOUT_COMMON = 12


class Sentence(NamedTuple):
    """What a sentence says; `praise` and `blame` are sums of valences, both 0 or more, `urgency` an index."""

    text: str
    words: Sequence[str]
    praise: float
    blame: float
    topics: Sequence[str]
    intents: Sequence[str]
    urgency: int
    is_request: bool
    is_question: bool


class _Trigger(NamedTuple):
    rest: tuple[str, ...]
    field: str
    value: Any


def _triggers() -> dict[str, dict[str, list[_Trigger]]]:
    """Returns the phrases of all tables by their first two words, those of one word under ""."""
    tables: dict[str, Mapping[Any, str]] = {
        "topic": vocabulary.TOPICS,
        "urgency": vocabulary.URGENCIES,
        "intent": vocabulary.GRAVE_INTENTS | vocabulary.INTENTS,
        "feeling": vocabulary.PHRASES,
        "demand": {True: vocabulary.DEMANDS},
        "request": {True: vocabulary.REQUESTS},
        "question": {True: vocabulary.QUESTIONS},
    }
    found: dict[str, dict[str, list[_Trigger]]] = {}
    for field, table in tables.items():
        for value, phrases in table.items():
            for phrase in phrases.split(","):
                first, second, *rest = [*phrase.split(), ""]
                found.setdefault(first, {}).setdefault(second, []).append(_Trigger(tuple(rest[:-1]), field, value))
    return found


_TRIGGERS = _triggers()
#: The values of the phrases in a sentence, by field.
_Found = defaultdict[str, list[Any]]


def split_sentences(message: str) -> list[str]:
    """Returns the sentences of a message, without those that only greet, thank or say goodbye."""
    return [part for part in _BETWEEN_SENTENCES.split(message) if part and not is_small_talk(part)]


def read_sentence(text: str, valences: Mapping[str, float]) -> Sentence:
    """Returns what the sentence says; `valences` are those of single words."""
    words = _words(text, valences)
    found = _matches(words)
    begins_as_question = bool(words) and words[0] in vocabulary.QUESTION_WORDS
    is_question = text.endswith("?") or (begins_as_question and not text.endswith((".", "!")))
    urgency = _urgency(found, is_shouted=_SHOUTED_NOW.search(text) is not None)
    feelings = [*found["feeling"], *_feelings(words, valences, is_question)]
    return Sentence(
        text,
        words,
        sum(feeling for feeling in feelings if feeling > 0),
        max(_blame(found["intent"], urgency, begins_as_question), -sum(feeling for feeling in feelings if feeling < 0)),
        found["topic"],
        found["intent"],
        urgency,
        bool(found["request"]),
        is_question or bool(found["question"]),
    )


def sentiment(sentences: Sequence[Sentence]) -> tuple[Sentiment, float]:
    """Returns sentiment and score; later sentences weigh more."""
    step = (_LAST_WEIGHS - _FIRST_WEIGHS) / max(len(sentences) - 1, 1)
    weights = [_FIRST_WEIGHS + step * place for place in range(len(sentences))] if len(sentences) > 1 else [1.0]
    praise = sum(weight * sentence.praise for weight, sentence in zip(weights, sentences, strict=True))
    blame = sum(weight * sentence.blame for weight, sentence in zip(weights, sentences, strict=True))
    total = praise - blame
    score = round(total / math.sqrt(total * total + 15), 4)  # as VADER normalises
    less, more = sorted((praise, blame))
    if less >= _MIXED_FROM and less >= more * _MIXED_SHARE:
        return "mixed", score
    if abs(total) < _NEUTRAL_BELOW:
        return "neutral", score
    return ("positive" if total > 0 else "negative"), score


def topics(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """Returns up to MAX_TOPICS topics, the most frequent first."""
    counts = Counter(topic for sentence in sentences for topic in sentence.topics)
    return tuple(topic for topic, _ in counts.most_common(MAX_TOPICS))


def intent(sentences: Sequence[Sentence], sentiment: Sentiment) -> str:
    """Returns the gravest intent, else the one that is named most, where first sentences count most, else a guess."""
    weights: defaultdict[str, float] = defaultdict(float)
    for place, sentence in enumerate(sentences):
        for name in set(sentence.intents):
            weights[name] += (1 if name in vocabulary.FAULTS else 2) / (1 + place)
    for name in vocabulary.GRAVE_INTENTS:
        if name in weights:
            return name
    if weights:
        return max(vocabulary.INTENTS, key=lambda name: weights[name])
    if any(sentence.is_question for sentence in sentences):
        return "ask_question"
    if any(sentence.is_request for sentence in sentences):
        return "request_service"
    return {"positive": "give_praise", "negative": "complain"}.get(sentiment, "inform")


def urgency(sentences: Sequence[Sentence]) -> Urgency:
    """Returns that of the most urgent sentence."""
    return _LEVELS[max((sentence.urgency for sentence in sentences), default=0)]


def summary(sentences: Sequence[Sentence]) -> str:
    """Returns the most telling sentence, word for word, cut at a word to MAX_SUMMARY_CHARS; of equal ones the first.

    Where none has three words, it is all of them.
    """
    whole = [sentence for sentence in sentences if len(sentence.words) >= _MIN_WORDS]
    if whole:
        weights = [_weight(sentence) - _LATER * place for place, sentence in enumerate(whole)]
        text = whole[weights.index(max(weights))].text
    else:
        text = " ".join(sentence.text for sentence in sentences)
    if len(text) <= MAX_SUMMARY_CHARS:
        return text
    start = text[: MAX_SUMMARY_CHARS - 1]
    return (start.rpartition(" ")[0] or start) + "…"


def language(sentences: Sequence[Sentence], known: Mapping[str, float]) -> Literal["en", "other", "none"]:
    """Returns whether the words look English rather than like another language; `none` where there are no words."""
    words = [word for sentence in sentences for word in sentence.words if word[0].isalpha()]
    english = sum(word in vocabulary.COMMON_ENGLISH for word in words)
    foreign = sum(word in vocabulary.COMMON_FOREIGN for word in words)
    if english or foreign:
        return "en" if english >= foreign else "other"
    is_short = len(words) <= _MAX_WORDS_WITHOUT_COMMON
    if is_short and any(word in known or word in _TRIGGERS for word in words):
        return "en"
    return "other" if words else "none"


def _weight(sentence: Sentence) -> float:
    is_grave = not sentence.is_question and any(name in vocabulary.GRAVE_INTENTS for name in sentence.intents)
    return (
        2.0 * bool(sentence.intents)
        + 2.0 * is_grave
        + 2.0 * sentence.urgency
        + 0.5 * min(len(sentence.topics), 3)
        + 1.5 * sentence.is_request
        + 1.0 * sentence.is_question
        + 0.3 * min(sentence.praise + sentence.blame, 4)
        + 0.5 * min(len(sentence.words), 8)
    )


def _words(text: str, valences: Mapping[str, float]) -> list[str]:
    lowered = text.lower().replace("’", "'")
    if not lowered.isascii():
        lowered = _PICTOGRAM.sub(r" \g<0> ", lowered)
    words = []
    for token in lowered.split():
        word = token if token in valences else token.strip(_EDGES)
        if word.endswith("n't") or word in vocabulary.NOT:
            word = "not"
        elif "$" in (word[:1], word[-1:]):
            word = "$"
        words.append(word)
        if not word or (word != token and token[-1] in ",;:"):
            words.append(_BREAK)
    return [word for word in words if word]


def _matches(words: Sequence[str]) -> _Found:
    """A negated word does not count, but a negated phrase does: it says enough by itself."""
    found: _Found = defaultdict(list)
    for place, word in enumerate(words):
        seconds = _TRIGGERS.get(word)
        if seconds is None:
            continue
        for _, field, value in seconds.get("", ()):
            if field == "topic" or not _is_negated(words, place):
                found[field].append(value)
        for second in range(place + 1, min(place + 1 + vocabulary.WINDOW, len(words))):
            for rest, field, value in seconds.get(words[second], ()):
                if _follow(words, second, rest):
                    found[field].append(value)
    return found


def _follow(words: Sequence[str], place: int, rest: Sequence[str]) -> bool:
    for word in rest:
        near = words[place + 1 : place + 1 + vocabulary.WINDOW]
        if word not in near:
            return False
        place += 1 + near.index(word)
    return True


def _is_negated(words: Sequence[str], place: int) -> bool:
    for word in reversed(words[max(place - _NEGATION_REACH, 0) : place]):
        if word in vocabulary.NEGATIONS:
            return True
        if word == _BREAK or word == "but":
            return False
    return False


def _urgency(found: _Found, *, is_shouted: bool) -> int:
    levels = [*found["urgency"], *(vocabulary.GRAVE_URGENCIES.get(intent, "low") for intent in found["intent"])]
    if is_shouted or found["demand"]:
        is_addressed = found["intent"] or found["topic"] or found["request"]
        levels.append("high" if is_addressed else "medium")
    return max(map(_LEVELS.index, levels), default=0)


def _blame(intents: Sequence[str], urgency: int, begins_as_question: bool) -> float:
    """Returns the blame in the plain report of a fault, whatever its words. A question about faults is not a report."""
    blames = [vocabulary.INTENT_BLAMES.get(intent, 0.0) for intent in intents]
    if begins_as_question and not vocabulary.GRAVE_INTENTS.keys() & set(intents):
        blames = []
    return max([*blames, _CRITICAL_BLAME * (_LEVELS[urgency] == "critical")])


def _feelings(words: Sequence[str], valences: Mapping[str, float], is_question: bool) -> Iterator[float]:
    but = words.index("but") if "but" in words else None
    for place, word in enumerate(words):
        valence = valences.get(word, 0.0)
        if not valence or (word not in vocabulary.FEELINGS and _is_wish(words, place)):
            continue
        if _is_negated(words, place):
            valence *= _NEGATED_PRAISE if valence > 0 else _NEGATED_BLAME
        if not word[-1].isalpha() and word.isascii():
            valence *= _EMOTICON
        if is_question and valence > 0:
            valence *= _PRAISE_IN_QUESTION
        if but is not None:
            valence *= 0.5 if place < but else 1.5
        yield valence


def _is_wish(words: Sequence[str], place: int) -> bool:
    before, after = words[max(place - 3, 0) : place], words[place + 1 : place + 2]
    return bool(vocabulary.WISHES & set(after)) and ("have" in before or words[place] == "good")
