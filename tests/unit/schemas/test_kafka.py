"""The names of topics and group, which separate environments that share a cluster."""

from schemas.kafka import Topics


def names(topics: Topics) -> list[str]:
    return [*topics.messages, topics.answers_changelog, topics.replay_ledger, topics.consumer_group]


def test_the_default_names_are_those_that_clients_rely_on() -> None:
    """Data and offsets of a running service are found under these names: none may ever change."""
    assert names(Topics()) == [
        "conversations",
        "conversations.rehomed",
        "conversations.dlq",
        "insights",
        "grok-insights-answers-changelog",
        "conversations.dlq.replayed",
        "grok-insights",
    ]
    assert Topics().inputs == ("conversations", "conversations.rehomed")


def test_a_prefix_starts_every_topic_once() -> None:
    """Also where the group already begins with it."""
    topics = Topics("staging.", "staging.grok-insights")
    assert all(name.startswith("staging.") and name.count("staging.") == 1 for name in names(topics))
    assert topics.answers_changelog == "staging.grok-insights-answers-changelog"


def test_a_group_without_the_prefix_still_has_a_prefixed_changelog() -> None:
    """The group's name is the user's to choose; the topic's must not leave the environment."""
    topics = Topics("staging.", "team-a")
    assert (topics.consumer_group, topics.answers_changelog) == ("team-a", "staging.team-a-answers-changelog")


def test_two_groups_on_the_same_topics_have_changelogs_of_their_own() -> None:
    """Each group caches its own answers."""
    one, other = Topics(consumer_group="one"), Topics(consumer_group="other")
    assert (one.inputs, one.answers_changelog) == (other.inputs, "one-answers-changelog")
    assert other.answers_changelog == "other-answers-changelog"
