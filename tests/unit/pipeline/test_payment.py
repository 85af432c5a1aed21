"""When a call may be paid for."""

import pytest
from streams.pipeline.assignment import Assignment
from streams.pipeline.attempts import AssignmentOver
from streams.pipeline.lease import GroupLease
from streams.pipeline.payment import until_may_pay


async def test_no_call_begins_while_the_assignment_ends() -> None:
    """It would be cut off by the drain and paid for again; with the next assignment calls go on."""
    lease, assignment = GroupLease(10, lambda: 0.0), Assignment()
    lease.renewed(0.0)
    await until_may_pay(lease, assignment)
    await assignment.drain(0)
    with pytest.raises(AssignmentOver):
        await until_may_pay(lease, assignment)
    assignment.reopen()
    await until_may_pay(lease, assignment)


async def test_a_halted_worker_may_still_finish_what_it_began() -> None:
    """Its assignment goes on."""
    lease, assignment = GroupLease(10, lambda: 0.0), Assignment()
    lease.renewed(0.0)
    assignment.halt()
    await until_may_pay(lease, assignment)
