"""The exception tree, drawn by what the caller must do.

InsightsError
├── Rejected       tell the client: stable code, field, HTTP status
├── Unprocessable  set the record aside as a dead letter: reason code
├── Retryable      do the same again later: optional seconds to wait
└── Fatal          stop: what failed, why, and what to change
"""


class InsightsError(Exception):
    """Root of every error that this project raises on purpose."""


class Rejected(InsightsError):
    """The input is wrong; `code` is stable, `field` names the part to change ("" for the whole input).

    The detail never quotes the input: it may hold conversation text.
    """

    def __init__(self, code: str, detail: str, *, field: str = "", status: int = 422) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.status = status


class Unprocessable(InsightsError):
    """The record can never be processed; `reason` is a DeadLetterReason's value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Retryable(InsightsError):
    """A passing failure; the same work may succeed later, at the earliest after `retry_after_s` if that is known."""

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Fatal(InsightsError):
    """The process or command cannot go on; shown as three lines: what, why, hint. `exit_code` is 1, or 2 for misuse."""

    def __init__(self, what: str, why: str = "", hint: str = "", *, exit_code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.exit_code = exit_code
