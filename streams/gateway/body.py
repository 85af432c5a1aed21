"""The body of a request: its declared form is checked before a byte is read, its size while it is read."""

from aiohttp import hdrs, web

from schemas.conversation import MAX_VALUE_BYTES
from schemas.errors import Rejected

TOO_LARGE = f"the body is larger than {MAX_VALUE_BYTES} bytes"


async def read_json_body(request: web.Request) -> bytes:
    """The raw bytes. Raises Rejected with 415 (not JSON, not UTF-8, compressed) or 413.

    A body that turns out too large is read no further; aiohttp then discards the rest for a while, so that the client
    sees the answer and no reset.
    """
    check_is_json(request)
    if request.content_length is not None and request.content_length > MAX_VALUE_BYTES:
        raise Rejected("too_large", TOO_LARGE, status=413)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Rejected("too_large", TOO_LARGE, status=413) from error


def check_is_json(request: web.BaseRequest) -> None:
    """Raises Rejected (415) unless the headers announce plain JSON in UTF-8."""
    declared = request.headers.get(hdrs.CONTENT_TYPE)
    if declared != "application/json" and not _is_json(request):
        detail = "send application/json in UTF-8"
        raise Rejected("unsupported_media_type", detail, field="content-type", status=415)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        detail = "compressed bodies are not taken"
        raise Rejected("unsupported_encoding", detail, field="content-encoding", status=415)


def _is_json(request: web.BaseRequest) -> bool:
    kind = request.content_type
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return is_json and (request.charset or "utf-8").lower() in ("utf-8", "utf8")
