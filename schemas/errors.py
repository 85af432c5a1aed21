"""The exception tree, by what the caller must do.

InsightsError
├── Rejected       report it to the client: stable code, field, HTTP status
├── Unprocessable  send the record to the dead-letter topic: reason code
├── Retryable      retry later: seconds to wait, if known
└── Fatal          stop: what failed, why, what to do
"""


class InsightsError(Exception):
    """Base class of all errors that this project raises."""


class Rejected(InsightsError):
    """The input is invalid.

    `code` is stable, `field` names the part to change ("" for the whole input). The detail never quotes the input,
    which may hold conversation text.
    """

    def __init__(self, code: str, detail: str, *, field: str = "", status: int = 422) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.status = status


class Unprocessable(InsightsError):
    """The record can never be processed. `reason` is a value of DeadLetterReason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Retryable(InsightsError):
    """A temporary failure.

    A retry may succeed, at the earliest after `retry_after_s` if that is known.
    """

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Fatal(InsightsError):
    """The process or command cannot continue.

    Shown as what, why and hint; `exit_code` is 1, or 2 for misuse.
    """

    def __init__(self, what: str, why: str = "", hint: str = "", *, exit_code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.exit_code = exit_code
