"""Timings: every duration of a worker that depends on another one, in one place."""

from dataclasses import dataclass

from schemas.settings import Settings

#: With keeping answers, the last commit, leaving the group and stopping the parts, each of which takes all of its time
#: when brokers are frozen, and half a second of Faust's, a stop comes to 9 s.
MAX_STOP_DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. What a rebalance takes (drain, keep, last commit) stays below `rebalance_timeout_s`, and what a stop
    takes below `stop_s`, whose promise is 10 s."""

    #: Without a heartbeat for this long the group replaces a worker. Apache Kafka refuses less than 6 s.
    session_timeout_s: float = 10.0
    #: What a member has to rejoin. Tansu also makes every join wait for half of it.
    rebalance_timeout_s: float = 12.0
    #: What work in flight gets when its partitions are revoked: a call to Grok takes 2 to 5 s, and one that is given up
    #: may be paid for twice.
    drain_s: float = 6.0
    #: The same when the worker stops.
    stop_drain_s: float = MAX_STOP_DRAIN_S
    #: What answers that came get to be kept after the drain.
    keep_s: float = 1.0
    #: What a broker that does not answer gets for the last commit; without it the records are read again.
    last_commit_s: float = 1.0
    #: What the reader gets, after all that, to close its consumer.
    reader_stop_s: float = 0.3
    #: What each part gets to stop; all stop at once.
    part_stop_s: float = 1.0
    #: The last resort: the process ends.
    stop_s: float = 9.5
    #: A table recovery that reads nothing for this long never ends by itself.
    recovery_stall_s: float = 15.0
    commit_interval_s: float = 0.3

    @property
    def heartbeat_interval_s(self) -> float:
        """Three heartbeats a session, so that two may be lost."""
        return self.session_timeout_s * 0.3


def timings(settings: Settings) -> Timings:
    """Derives the timings from the group's two timeouts."""
    drain_s = settings.kafka_rebalance_timeout_s / 2
    return Timings(
        session_timeout_s=settings.kafka_session_timeout_s,
        rebalance_timeout_s=settings.kafka_rebalance_timeout_s,
        drain_s=drain_s,
        stop_drain_s=min(drain_s, MAX_STOP_DRAIN_S),
    )
