"""Describes failed connections to brokers, databases and the provider in the same words."""

import os
import re
import socket
import ssl

#: What OpenSSL, in its versions, finds wrong with the answer of a server that does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


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
