"""The conversations that this gateway accepted recently: when it accepted one that has no row yet. Pure."""

from datetime import datetime, timedelta

MAX_REMEMBERED = 10_000
REMEMBERED_FOR = timedelta(minutes=10)


class RecentlyAccepted:
    """Times of acceptance by tenant and conversation ID, of this process only: at most MAX_REMEMBERED, the newest.

    A conversation that is not in it may still have been accepted: by another gateway, earlier, or by the topic itself.
    """

    def __init__(self) -> None:
        #: The oldest first.
        self._accepted_at: dict[tuple[str, str], datetime] = {}

    def add(self, tenant: str, conversation_id: str, at: datetime) -> None:
        """Remembers a conversation that the brokers have just confirmed."""
        accepted = (tenant, conversation_id)
        self._accepted_at.pop(accepted, None)
        self._accepted_at[accepted] = at
        if len(self._accepted_at) > MAX_REMEMBERED:
            del self._accepted_at[next(iter(self._accepted_at))]

    def accepted_at(self, tenant: str, conversation_id: str, now: datetime) -> datetime | None:
        """Returns when it was last accepted, None if that is unknown or longer ago than REMEMBERED_FOR."""
        at = self._accepted_at.get((tenant, conversation_id))
        return None if at is None or now - at > REMEMBERED_FOR else at
