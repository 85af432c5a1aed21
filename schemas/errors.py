"""The exception tree, by what the caller must do, and the words for a connection that failed.

InsightsError
├── Rejected       report it to the client: stable code, field, HTTP status
├── Unprocessable  send the record to the dead-letter topic: reason code
├── Retryable      retry later: seconds to wait, if known
└── Fatal          stop: what failed, why, what to do
"""

import os
import re
import socket
import ssl

#: What OpenSSL, in its versions, finds wrong with the answer of a server that does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


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


def describe_connection_error(error: OSError, where: str) -> str:
    """Returns on one line why the connection to `where`, a host and port, failed; holds no secrets."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {where} cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or error.strerror  # one that Python itself raises has no reason
        return f"TLS with {where} failed: {'that port does not speak TLS' if reason in _NO_TLS else reason}"
    if isinstance(error, TimeoutError):
        return f"no answer from {where}"
    if isinstance(error, socket.gaierror):
        return f"unknown host {where}: {error.strerror}"
    # A host with several addresses: one error that has no number and quotes those of all attempts.
    numbers = [error.errno] if error.errno else map(int, re.findall(r"\[Errno (\d+)\]", str(error)))
    words = ", ".join(dict.fromkeys(map(os.strerror, numbers))) or "it was closed or refused"
    return f"no connection to {where}: {words}"
