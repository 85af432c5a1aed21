"""PaidCall: one call to the provider that cost something, or may have, as stored in the table `calls`."""

from typing import Literal

import msgspec

from schemas.insight import Usage
from schemas.instant import Instant

#: `ambiguous`: no reply came, and the provider may have billed all the same.
CallOutcome = Literal["answered", "bad_answer", "refused", "ambiguous"]


class PaidCall(msgspec.Struct, frozen=True):
    """A call is identified by its text (tenant, text key and analysis version) and the time of its reply.

    Of an answered call all of that is in the changelog with the answer, so a record that is read again after a crash
    names the same call. `conversation_id` is the conversation that waited longest for the answer. Tokens and cost are 0
    where no reply named them.
    """

    tenant: str
    text_key: str
    analysis_version: str
    ended_at: Instant
    conversation_id: str
    outcome: CallOutcome
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd_ticks: int


class UnansweredCall(msgspec.Struct, frozen=True):
    """A call without a usable answer, as the analyser reports it."""

    outcome: CallOutcome
    model: str
    ended_at: Instant
    usage: Usage = Usage()
