"""When a call may be paid for: while the group counts this worker in, and not when its assignment ends."""

from streams.pipeline.assignment import Assignment
from streams.pipeline.attempts import AssignmentOver
from streams.pipeline.lease import GroupLease


async def until_may_pay(lease: GroupLease, assignment: Assignment) -> None:
    """Waits for the lease. Raises AssignmentOver while the assignment ends: the drain would cut the call off, and
    whoever has the text next would pay for it again."""
    await lease.held()
    if assignment.is_ending:
        raise AssignmentOver("the assignment ends: a call would be cut off, and paid for again")
