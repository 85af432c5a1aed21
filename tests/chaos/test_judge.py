"""The judge sees each fault, and none in a calm run."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from tests.chaos.evidence import Call
from tests.chaos.judge import judge
from tests.chaos.oracle import Kind
from tests.chaos.repeated_calls import Death, FaultHistory, Freeze, Outage
from tests.chaos.scene import CALLER, Scene
from tests.chaos.verdict import Verdict
from tests.support.topics import TOPICS

COUNT = 300


def verdict_on(
    scene: Scene,
    *deaths: Death,
    outages: tuple[Outage, ...] = (),
    moves_s: tuple[float, ...] = (),
    freezes: tuple[Freeze, ...] = (),
) -> Verdict:
    faults = FaultHistory(deaths, outages, moves_s, freezes)
    return judge(scene.oracle, scene.posted, scene.evidence, faults, everything_is_due=True)


def delete_dead_letter(scene: Scene) -> None:
    value = scene.case(Kind.BROKEN).value
    found = scene.evidence.dead_letters
    scene.evidence.dead_letters = {at: dead for at, dead in found.items() if dead[0].value != value}


def add_event_of(scene: Scene, kind: Kind) -> None:
    case = scene.case(kind)
    scene.event(case, case.number, "analysed", scene.oracle.insight(scene.case(Kind.REPEAT)))


def commit_too_early(scene: Scene) -> None:
    record = scene.absorb(TOPICS.conversations, b"k", scene.oracle.case(COUNT).value)
    scene.commit(record.offset + 1)


def commit_backwards(scene: Scene) -> None:
    scene.commit(3)
    scene.commit(COUNT)


def delay_row(scene: Scene) -> None:
    scene.row(scene.case(Kind.FRESH))["written_at"] = datetime.fromtimestamp(scene.tick() / 1000, UTC)


def forget_calls(scene: Scene) -> None:
    text = scene.case(Kind.FRESH).digest
    scene.evidence.calls = [call for call in scene.evidence.calls if call.text != text]


def ask_five_times(scene: Scene) -> None:
    for _ in range(5):
        scene.call(scene.case(Kind.FRESH), fault="bad_schema")


def keep_at(scene: Scene, times_ms: list[int]) -> None:
    scene.evidence.kept[scene.case(Kind.FRESH).text_key] = times_ms


#: What is spoiled in a calm run, how, and the violation that must be reported.
SPOILED: Mapping[str, tuple[Callable[[Scene], object], str]] = {
    "row lost": (lambda scene: scene.evidence.rows.remove(scene.row(scene.case(Kind.FRESH))), "missing"),
    "dead letter lost": (delete_dead_letter, "missing"),
    "confirmed and not in the topic": (lambda scene: scene.posted.confirmed.add(COUNT + 5), "missing"),
    "answer of another text": (lambda scene: scene.row(scene.case(Kind.FRESH)).update(summary="other"), "corrupted"),
    "event that differs": (lambda scene: add_event_of(scene, Kind.FRESH), "corrupted"),
    "row of no conversation": (
        lambda scene: scene.evidence.rows.append({**scene.evidence.rows[0], "conversation_id": "unknown"}),
        "invented",
    ),
    "row twice": (lambda scene: scene.evidence.rows.append(dict(scene.evidence.rows[0])), "duplicate_rows"),
    "row without event": (lambda scene: scene.evidence.events.pop(scene.case(Kind.FRESH).id), "unbalanced"),
    "good text died": (
        lambda scene: scene.row(scene.case(Kind.FRESH)).update(outcome="dead", reason="bad_answer"),
        "unbalanced",
    ),
    "offset left behind": (lambda scene: scene.evidence.commits.pop(), "unbalanced"),
    "committed too early": (commit_too_early, "commits_past_unfinished"),
    "commit moved back": (commit_backwards, "commits_moved_back"),
    "committed between event and row": (delay_row, "commits_past_unfinished"),
    "committed past the end": (lambda scene: scene.commit(COUNT + 1), "unbalanced"),
    "asked again": (lambda scene: scene.call(scene.case(Kind.FRESH), caller="bbbbbbbb"), "paid_again"),
    "answered and never kept": (lambda scene: keep_at(scene, []), "paid_again"),
    "delivered before it was kept": (lambda scene: keep_at(scene, [scene.tick()]), "delivered_before_kept"),
    "answer without a call": (forget_calls, "unbalanced"),
    "given up without a reason": (
        lambda scene: scene.call(scene.case(Kind.FRESH), end="cut_off", fault="hang"),
        "paid_again",
    ),
    "asked five times for a good answer": (ask_five_times, "paid_again"),
    "broken with an event": (lambda scene: add_event_of(scene, Kind.BROKEN), "unbalanced"),
    "dead with an event": (lambda scene: add_event_of(scene, Kind.REFUSED), "unbalanced"),
    "alive with a dead letter": (
        lambda scene: scene.dead_letter(scene.case(Kind.FRESH), scene.case(Kind.FRESH).number, "bad_answer"),
        "unbalanced",
    ),
    "record of no conversation": (
        lambda scene: scene.absorb(TOPICS.conversations, b"k", b'{"id": "unknown"}'),
        "invented",
    ),
    "event without headers": (lambda scene: scene.absorb(TOPICS.insights, b"k", b"{}"), "invented"),
}


def test_a_calm_run_is_green_and_its_figures_are_right() -> None:
    """It has all kinds of cases, each with its one outcome."""
    count = 1_500  # enough for one of each kind
    scene = Scene(count)
    verdict = verdict_on(scene)
    assert verdict.lines() == []
    assert {scene.oracle.case(number).kind for number in range(count)} == set(Kind)
    assert verdict.figures["calls"] == verdict.figures["distinct_texts"] > 0
    assert (verdict.figures["ids"], verdict.figures["redelivered"], verdict.figures["cut_off"]) == (count, 0, 0)


@pytest.mark.parametrize("what", SPOILED)
def test_each_wrong_is_seen(what: str) -> None:
    """One place of the evidence is spoiled, and the judge names the violation."""
    scene = Scene(COUNT)
    spoil, violation = SPOILED[what]
    spoil(scene)
    verdict = verdict_on(scene)
    assert violation in verdict.counts, verdict.lines()


def cut_off_scene() -> tuple[Scene, float]:
    """A fresh text's answer was not kept by its worker, and another worker asked again; when the first call ended."""
    scene = Scene(10)
    first = first_call(scene)
    again = first._replace(caller="bbbbbbbb", began_s=first.ended_s + 0.001, ended_s=first.ended_s + 0.002)
    scene.evidence.calls.append(again)
    return scene, first.ended_s


def assert_one_cut_off(verdict: Verdict) -> None:
    assert verdict.is_green, verdict.lines()
    assert verdict.figures["calls"] - verdict.figures["distinct_texts"] == verdict.figures["cut_off"] == 1


def first_call(scene: Scene) -> Call:
    return next(call for call in scene.evidence.calls if call.text == scene.case(Kind.FRESH).digest)


def test_a_call_whose_worker_died_before_its_answer_was_kept_may_be_made_again() -> None:
    """It is counted as cut off; without the death it is paid for again."""
    scene, ended_s = cut_off_scene()
    verdict = verdict_on(scene, Death(CALLER, ended_s, "killed"))
    assert_one_cut_off(verdict)
    assert verdict_on(scene).counts["paid_again"] == 1


def test_a_request_that_is_read_after_its_worker_was_frozen_was_sent_before() -> None:
    """The stand-in takes it out of the socket a moment later; it excuses only what is so near."""
    scene, _ = cut_off_scene()
    first = first_call(scene)
    assert verdict_on(scene, Death(CALLER, first.began_s - 0.05, "frozen")).is_green
    assert verdict_on(scene, Death(CALLER, first.began_s - 5, "frozen")).counts["paid_again"] == 1


def test_a_thawed_worker_may_send_the_one_request_that_it_was_sending() -> None:
    """At once, and only that one; it counts as cut off."""
    scene, _ = cut_off_scene()
    again = scene.evidence.calls[-1]
    freeze = Freeze(again.caller, again.began_s - 15, again.began_s - 0.001)
    verdict = verdict_on(scene, freezes=(freeze,))
    assert_one_cut_off(verdict)
    assert verdict_on(scene, freezes=(freeze._replace(to_s=again.began_s - 1),)).counts["paid_again"] == 1
    assert verdict_on(scene, freezes=(freeze._replace(caller=CALLER),)).counts["paid_again"] == 1
    scene.evidence.calls.append(again._replace(began_s=again.began_s + 0.001))
    assert verdict_on(scene, freezes=(freeze,)).counts["paid_again"] == 1


def long_ago(scene: Scene, by_s: float) -> float:
    """The first call was so much earlier; when it ended."""
    first = first_call(scene)
    earlier = first._replace(began_s=first.began_s - by_s, ended_s=first.ended_s - by_s)
    scene.evidence.calls[scene.evidence.calls.index(first)] = earlier
    return earlier.ended_s


def test_a_death_long_after_the_answer_excuses_nothing_while_brokers_were_there() -> None:
    """The worker had the time to keep it."""
    scene, _ = cut_off_scene()
    ended_s = long_ago(scene, 60)
    death = Death(CALLER, ended_s + 50, "killed")
    assert verdict_on(scene, death).counts["paid_again"] == 1
    assert verdict_on(scene, death, outages=(Outage(ended_s, ended_s + 40),)).is_green


def test_an_answer_that_no_broker_took_while_the_partition_moved_may_be_asked_for_again() -> None:
    """Its worker remembers it, and the partition's new owner cannot; one without the other excuses nothing."""
    scene, _ = cut_off_scene()
    ended_s = long_ago(scene, 60)
    outages, moves_s = (Outage(ended_s, ended_s + 3),), (ended_s + 2,)
    assert verdict_on(scene, outages=outages, moves_s=moves_s).is_green
    assert verdict_on(scene, outages=outages).counts["paid_again"] == 1
    assert verdict_on(scene, moves_s=moves_s).counts["paid_again"] == 1


def test_a_text_may_be_answered_after_it_died_of_bad_answers() -> None:
    """Its worker was killed before the offset was committed; then the answer is kept long after the first end."""
    scene = Scene(10)
    fresh = scene.case(Kind.FRESH)
    for _ in range(2):
        scene.call(fresh, fault="bad_schema")
    scene.dead_letter(fresh, fresh.number, "bad_answer")
    scene.evidence.kept[fresh.text_key] = [scene.tick()]
    assert verdict_on(scene, Death(CALLER, first_call(scene).ended_s, "killed")).is_green


def test_a_text_may_die_of_bad_answers_after_a_good_one_was_lost() -> None:
    """The good answer was never kept."""
    scene = Scene(0)
    number = next(number for number in range(100) if scene.oracle.case(number).kind is Kind.FRESH)
    case = scene.oracle.case(number)
    scene.posted.confirmed.add(number)
    lost = scene.call(case)
    for _ in range(2):
        scene.call(case, caller="bbbbbbbb", fault="bad_schema")
    scene.take_to_death(case, "bad_answer")
    assert verdict_on(scene, Death(CALLER, lost.ended_s, "killed")).is_green
    assert verdict_on(scene).counts["paid_again"] == 1


@pytest.mark.parametrize(("away", "is_green"), [(True, True), (False, False)])
def test_a_graceful_stop_excuses_only_answers_that_could_not_be_kept(away: bool, is_green: bool) -> None:
    """A worker that is stopped ends its calls first."""
    scene, ended_s = cut_off_scene()
    outages = (Outage(ended_s, ended_s + 1),) if away else ()
    assert verdict_on(scene, Death(CALLER, ended_s, "stopped"), outages=outages).is_green is is_green


def test_a_stop_is_over_when_the_process_has_ended() -> None:
    """Calls end after the stop signal, and brokers may go away in between; an answer that it keeps then is kept."""
    scene, _ = cut_off_scene()
    ended_s = long_ago(scene, 60)
    scene.evidence.calls.append(scene.evidence.calls.pop()._replace(caller=CALLER))
    outages, signalled = (Outage(ended_s - 0.1, ended_s + 30),), Death(CALLER, ended_s - 0.3, "stopped")
    stop = signalled._replace(took_s=8.0)
    verdict = verdict_on(scene, stop, outages=outages)
    assert_one_cut_off(verdict)
    assert verdict_on(scene, stop).counts["paid_again"] == 1
    assert verdict_on(scene, signalled, outages=outages).counts["paid_again"] == 1
    scene.evidence.kept[scene.case(Kind.FRESH).text_key].insert(0, round((ended_s + 4) * 1000))
    assert verdict_on(scene, stop, outages=outages).counts["paid_again"] == 1


def test_a_worker_that_was_given_up_and_lives_does_not_ask_again_itself() -> None:
    """Another one may: it remembers the answer that it could not keep."""
    scene, ended_s = cut_off_scene()
    death = Death(CALLER, ended_s, "given_up")
    assert verdict_on(scene, death, outages=(Outage(ended_s, ended_s),)).is_green
    scene.evidence.calls.append(scene.evidence.calls.pop()._replace(caller=CALLER))
    assert verdict_on(scene, death, outages=(Outage(ended_s, ended_s),)).counts["paid_again"] == 1


def test_a_worker_that_was_given_up_and_died_at_once_may_ask_again_in_its_next_life() -> None:
    """It could not keep the answer before; it may not where it died after that, or later than it needed to keep it."""
    scene, _ = cut_off_scene()
    ended_s = long_ago(scene, 60)
    given_up, outages = Death(CALLER, ended_s + 30, "given_up"), (Outage(ended_s, ended_s + 30),)
    scene.evidence.calls.append(scene.evidence.calls.pop()._replace(caller=CALLER))

    def verdict(killed_s: float, *moves_s: float) -> Verdict:
        deaths = (given_up, Death(CALLER, killed_s, "killed"))
        return verdict_on(scene, *deaths, outages=outages, moves_s=moves_s)

    assert_one_cut_off(verdict(ended_s + 33, ended_s + 31))
    assert verdict(ended_s + 50).is_green
    assert verdict(ended_s + 46, ended_s + 31).is_green
    assert verdict(ended_s + 52, ended_s + 31).counts["paid_again"] == 1
    assert verdict(ended_s + 62, ended_s + 59).counts["paid_again"] == 1


def test_what_hangs_may_be_given_up_when_the_partition_goes() -> None:
    """A rebalance or the worker's own end is near."""
    scene = Scene(10)
    call = scene.call(scene.case(Kind.FRESH), end="cut_off", fault="hang")
    assert verdict_on(scene, moves_s=(call.ended_s + 3,)).is_green
    assert verdict_on(scene, Death(CALLER, call.ended_s, "killed")).is_green


def test_a_rebalance_that_frozen_brokers_hold_up_is_near_until_they_are_back() -> None:
    """Revoked, given up after the drain, and nothing more for half a minute."""
    scene = Scene(10)
    ended_s = scene.call(scene.case(Kind.FRESH), end="cut_off", fault="hang").ended_s
    moved_s = ended_s + 25
    assert verdict_on(scene, moves_s=(moved_s,)).counts["paid_again"] == 1
    assert verdict_on(scene, moves_s=(moved_s,), outages=(Outage(ended_s - 6, moved_s),)).is_green
    assert verdict_on(scene, moves_s=(moved_s,), outages=(Outage(ended_s - 9, ended_s - 6),)).counts["paid_again"] == 1


def test_a_kept_answer_excuses_no_second_call_after_any_death() -> None:
    """The changelog had the answer before the worker died."""
    scene = Scene(10)
    fresh = scene.case(Kind.FRESH)
    died_s = scene.tick() / 1000
    scene.call(fresh, caller="bbbbbbbb")
    assert verdict_on(scene, Death(CALLER, died_s, "killed")).counts["paid_again"] == 1


def test_a_call_that_the_stand_in_spoiled_does_not_count() -> None:
    """After an error status or a lost reply another call must follow."""
    scene = Scene(10)
    scene.call(scene.case(Kind.FRESH), end="failed", fault="http_500")
    assert verdict_on(scene).is_green


def test_repeated_work_is_seen_and_is_not_a_violation() -> None:
    """At least once: an event may be repeated, as long as it says the same."""
    scene = Scene(10)
    fresh = scene.case(Kind.FRESH)
    scene.event(fresh, fresh.number, "cached", scene.oracle.insight(fresh))
    verdict = verdict_on(scene)
    assert (verdict.is_green, verdict.figures["redelivered"]) == (True, 1)


def test_a_text_that_hangs_is_not_due_and_holds_its_offset() -> None:
    """While Grok holds it, it may lack its outcome; still no commit may pass it."""
    scene = Scene(0)
    number = next(number for number in range(10_000) if scene.oracle.case(number).kind is Kind.HANGS)
    scene.posted.confirmed.add(number)
    record = scene.absorb(TOPICS.conversations, b"k", scene.oracle.case(number).value)

    def verdict() -> Verdict:
        return judge(scene.oracle, scene.posted, scene.evidence, FaultHistory((), (), ()), everything_is_due=False)

    assert verdict().is_green
    scene.commit(record.offset + 1)
    assert verdict().counts == {"commits_past_unfinished": 1}


def test_the_changelog_is_recognised() -> None:
    """Answers are known by the text key in front of the analysis version."""
    scene = Scene(0)
    scene.absorb(TOPICS.answers_changelog, b"key:version", b"{}")
    assert list(scene.evidence.kept) == ["key"]
