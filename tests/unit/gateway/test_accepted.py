"""What a gateway remembers of the conversations that it accepted, bounded in number and age."""

from datetime import UTC, datetime, timedelta

from streams.gateway.accepted import MAX_REMEMBERED, REMEMBERED_FOR, RecentlyAccepted

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_latest_acceptance_counts_for_a_while() -> None:
    """Each tenant has its own."""
    accepted = RecentlyAccepted()
    accepted.add("a", "c-1", NOON)
    accepted.add("a", "c-1", NOON + timedelta(minutes=1))
    assert accepted.accepted_at("a", "c-1", NOON + REMEMBERED_FOR) == NOON + timedelta(minutes=1)
    assert accepted.accepted_at("a", "c-1", NOON + REMEMBERED_FOR + timedelta(minutes=2)) is None
    assert accepted.accepted_at("b", "c-1", NOON) is None


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    """One that is accepted again is new again."""
    accepted = RecentlyAccepted()
    for number in [*range(MAX_REMEMBERED), 0, MAX_REMEMBERED]:
        accepted.add("a", str(number), NOON)
    assert [accepted.accepted_at("a", str(number), NOON) is None for number in (0, 1, 2)] == [False, True, False]
