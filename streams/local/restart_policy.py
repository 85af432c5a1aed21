"""When a dead part is started again: a pure policy, the time is an argument."""

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0


class RestartPolicy:
    """Pauses of 1, 2, 4 ... 30 seconds; a part that lived for 60 seconds begins at 1 again."""

    def __init__(self) -> None:
        self._next_pause_s = FIRST_PAUSE_S
        self._started_at = 0.0
        self._due_at: float | None = None

    @property
    def is_waiting(self) -> bool:
        """The part is dead and that is known."""
        return self._due_at is not None

    def started(self, now: float) -> None:
        """The part has a process again."""
        self._started_at = now
        self._due_at = None

    def died(self, now: float) -> float:
        """The part has no process any more; returns the seconds to wait before the next one."""
        if now - self._started_at >= STEADY_AFTER_S:
            self._next_pause_s = FIRST_PAUSE_S
        pause_s = self._next_pause_s
        self._next_pause_s = min(2 * pause_s, MAX_PAUSE_S)
        self._due_at = now + pause_s
        return pause_s

    def is_due(self, now: float) -> bool:
        """The pause is over."""
        return self._due_at is not None and now >= self._due_at
