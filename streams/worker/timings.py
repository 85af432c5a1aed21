"""Timings: every duration of a worker that depends on another one, in one place."""

from dataclasses import dataclass

from schemas.settings import Settings

#: With keeping answers, the last commit, leaving the group and stopping the parts, each of which takes all of its time
#: when brokers are frozen, and half a second of Faust's, a stop comes to 9 s.
MAX_STOP_DRAIN_S = 5.0
DEFAULT_REBALANCE_TIMEOUT_S = 12.0
#: With the default rebalance timeout; with a shorter one these are shorter, too.
KEEP_S, LAST_COMMIT_S, READER_STOP_S = 1.0, 1.0, 0.3


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. What a rebalance takes (drain, keep, last commit) stays below `rebalance_timeout_s`, and what a stop
    takes below `stop_s`, whose promise is 10 s."""

    #: Without a heartbeat for this long the group replaces a worker. Apache Kafka refuses less than 6 s; Tansu lets
    #: every join wait for half of it.
    session_timeout_s: float = 10.0
    #: What a member has to rejoin.
    rebalance_timeout_s: float = DEFAULT_REBALANCE_TIMEOUT_S
    #: What work in flight gets when its partitions are revoked: a call to Grok takes 2 to 5 s, and one that is given up
    #: may be paid for twice.
    drain_s: float = 6.0
    #: The same when the worker stops.
    stop_drain_s: float = MAX_STOP_DRAIN_S
    #: What answers that came get to be kept after the drain.
    keep_s: float = KEEP_S
    #: What a broker that does not answer gets for the last commit; without it the records are read again.
    last_commit_s: float = LAST_COMMIT_S
    #: What the reader gets, after all that, to close its consumer.
    reader_stop_s: float = READER_STOP_S
    #: What each part gets to stop; all stop at once.
    part_stop_s: float = 1.0
    #: The last resort: the process ends.
    stop_s: float = 9.5
    #: A table recovery that reads nothing for this long never ends by itself.
    recovery_stall_s: float = 15.0
    commit_interval_s: float = 0.3
    #: How often a worker counts the partitions of its topics, and how old its view of the cluster gets: so long may
    #: pass until it sees new ones.
    partitions_check_s: float = 20.0
    #: What a broker gets for an answer; a join is answered after the rebalance timeout at the latest.
    request_timeout_s: float = 30.0
    #: A member learns of a rebalance from the answer to its next heartbeat.
    heartbeat_interval_s: float = 3.0


def timings(settings: Settings) -> Timings:
    """Derives the timings from the group's two timeouts.

    What happens before a member rejoins (a heartbeat, drain, keep, last commit, the reader's end) takes less than the
    rebalance timeout: a member that is later is replaced, and its calls are paid for again.
    """
    rebalance_s = settings.kafka_rebalance_timeout_s
    heartbeat_s = settings.kafka_heartbeat_interval_s
    share = min(1.0, rebalance_s / DEFAULT_REBALANCE_TIMEOUT_S)
    rest_s = heartbeat_s + share * (KEEP_S + LAST_COMMIT_S + READER_STOP_S)
    drain_s = min(rebalance_s / 2, rebalance_s - rest_s)
    return Timings(
        session_timeout_s=settings.kafka_session_timeout_s,
        heartbeat_interval_s=heartbeat_s,
        rebalance_timeout_s=rebalance_s,
        request_timeout_s=max(30.0, settings.kafka_session_timeout_s, rebalance_s + 5.0),
        drain_s=drain_s,
        stop_drain_s=min(drain_s, MAX_STOP_DRAIN_S),
        keep_s=share * KEEP_S,
        last_commit_s=share * LAST_COMMIT_S,
        reader_stop_s=share * READER_STOP_S,
    )
