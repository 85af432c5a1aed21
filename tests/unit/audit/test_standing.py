"""Where the group stands against the log: what retention took unread, and offsets of another log."""

from streams.audit.standing import Standing


def test_a_group_within_the_log_owes_what_it_committed() -> None:
    """Up to either edge nothing is wrong."""
    for committed in (10, 40, 90):
        standing = Standing(10, committed, 90)
        assert (standing.due, standing.lost, standing.ahead, standing.unchecked) == (committed, 0, 0, 0)


def test_what_was_removed_before_it_was_committed_is_lost() -> None:
    """The workers will begin at the log's begin, and nobody ever reads what was before."""
    assert Standing(10, 7, 90).lost == 3
    assert Standing(10, 0, 90).lost == 10


def test_offsets_beyond_the_log_are_of_another_log() -> None:
    """The workers read all of it again, so nothing is due."""
    standing = Standing(10, 95, 90)
    assert (standing.ahead, standing.lost, standing.due) == (5, 0, 10)


def test_of_a_group_that_never_committed_nothing_can_be_said() -> None:
    """Neither that it read what is gone, nor that it did not."""
    standing = Standing(10, None, 90)
    assert (standing.unchecked, standing.lost, standing.ahead, standing.due) == (10, 0, 0, 0)
