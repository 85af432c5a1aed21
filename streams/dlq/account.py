"""Account: what became of the letters of one replay, or would become of them. Pure."""

from dataclasses import dataclass

from streams.dlq.replay import Replayed
from streams.dlq.survey import Survey


@dataclass(frozen=True, slots=True)
class Account:
    """`to_send` is what was to be sent when the run began, within its limit; `left` is what another run would find.

    Of the `sent`, `unmarked` have no mark in the ledger, so that another run sends them again.
    """

    to_send: int
    sent: int
    unmarked: int
    replayed_already: int
    too_often: int
    filtered: int
    left: int
    failed: int

    @property
    def skipped(self) -> int:
        """Left out on purpose."""
        return self.replayed_already + self.too_often + self.filtered


def account_of(survey: Survey, done: Replayed, limit: int | None) -> Account:
    """Of a run in which `done` was done; of a dry run, where that is nothing, `left` is everything."""
    waiting = survey.to_send.total()
    sent = done.sent.total()
    return Account(
        to_send=waiting if limit is None else min(limit, waiting),
        sent=sent,
        unmarked=sent - done.marked,
        replayed_already=survey.replayed,
        too_often=survey.too_often,
        filtered=survey.filtered,
        # Those that cannot be sent are left until they are met, and failed from then on.
        left=max(0, waiting + survey.foreign - sent - done.failed),
        failed=done.failed,
    )
