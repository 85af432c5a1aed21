"""GrokAnalyser: the one module that speaks HTTP to the Grok API."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
import structlog
from aiohttp import BytesPayload
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from agents.analyser import NOTHING, CallObserver, ErrorClass, OnUnanswered, ignore_call
from agents.grok.failures import (
    CallFailure,
    failure_of_exception,
    failure_of_status,
    is_page,
    is_passing,
    provider_words,
)
from agents.grok.prompt import ANSWER_SCHEMA, SYSTEM_PROMPT, RequestTemplate, analysis_version
from agents.grok.reply import BadAnswer, Refused, Reply, UnreadableReply, read_reply
from agents.limits.breaker import CircuitBreaker, Permit
from schemas.call import CallOutcome, UnansweredCall
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, InsightsError, Retryable, Unprocessable
from schemas.insight import Answer, Usage
from schemas.settings import is_loopback

MAX_REPLY_BYTES = 1024 * 1024
#: A connection that is not there by then will rather not come; the rest of the time limit is for the answer.
_MAX_CONNECT_S = 10.0
_KEEPALIVE_S = 60.0
#: A key or a model that the provider refuses stays wrong until a person acts.
CHECK_AGAIN_S = 60.0

log = structlog.get_logger()


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Outage(NamedTuple):
    """Why calls pause, and since when."""

    began_s: float
    error_class: ErrorClass
    status: int | None
    why: str


class GrokAnalyser:
    """Implements agents.analyser.Analyser by `POST {base_url}/chat/completions`, one conversation a call.

    `timeout_s` bounds a whole call, `max_connections` the calls in flight; `clock` is a monotonic one in seconds. Each
    call is made once: whether to repeat it after Retryable is the caller's decision. `wait_allowed` is awaited before
    each call, and again in the step that sends it: it returns while this worker may make calls, and what it raises is
    raised.
    """

    is_paid = True

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        model: str,
        timeout_s: float,
        breaker: CircuitBreaker,
        observer: CallObserver,
        wait_allowed: Callable[[], Awaitable[None]],
        max_connections: int,
        cost_per_1k_usd: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._url = URL(f"{self._base_url}/chat/completions")
        #: Host and port, as shown in messages.
        self._where = address_of(self._url)
        self._api_key = api_key
        self._model = model
        self._template = RequestTemplate(model)
        # Places for connections are never waited for, so a timer for that would be spent on nothing at each call.
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_MAX_CONNECT_S, timeout_s / 2))
        self._breaker = breaker
        self._observer = observer
        self._wait_allowed = wait_allowed
        self._max_connections = max_connections
        self._cost_per_1k_usd = cost_per_1k_usd
        self._clock = clock
        self._now = now
        self._version = analysis_version(SYSTEM_PROMPT, ANSWER_SCHEMA, model)
        self._session: aiohttp.ClientSession | None = None
        self._outage: _Outage | None = None
        #: When each call in flight began, the oldest first.
        self._in_flight: dict[object, float] = {}
        #: Texts that had a bad answer and whose next call failed, the oldest first.
        self._had_bad_answer: dict[str, None] = {}

    @property
    def version(self) -> str:
        """Changes with system prompt, answer schema and model."""
        return self._version

    @property
    def calls_in_flight(self) -> int:
        """Calls that were sent, or are about to be, and have no reply yet."""
        return len(self._in_flight)

    @property
    def oldest_call_age_s(self) -> float:
        """The age of the oldest call in flight; 0 without any."""
        now_s = self._clock()
        return now_s - next(iter(self._in_flight.values()), now_s)

    async def start(self) -> None:
        """Makes the session, inside the event loop that will use it; connections are made when needed.

        Raises Fatal when HTTPS_PROXY (HTTP_PROXY for a plain address) names no HTTP proxy.
        """
        # aiohttp's trust_env would read the environment and ~/.netrc again for each call, in threads, and refuse every
        # call where .netrc names the provider.
        proxy = _proxy_of(self._url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=_KEEPALIVE_S),
            timeout=self._timeout,
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Authorization": f"Bearer {self._api_key}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def stop(self) -> None:
        """Closes all connections; calls still in flight fail."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def check(self) -> None:
        """Asks whether the provider takes the key and has the model; this costs no tokens.

        Raises Retryable with the setting to change and the provider's words, or while the provider does not answer, and
        Fatal for an address that is not a URL.
        """
        status, body = await self._get(f"models/{quote(self._model, safe='')}")
        if status == 404:
            # Some compatible servers can only list their models.
            listed_status, listed = await self._get("models")
            if listed_status != 200:
                raise self._misconfigured("GROK_BASE_URL", listed_status, listed)
            if self._model not in _model_ids(listed):
                raise self._misconfigured("GROK_MODEL", status, body)
        elif status in (400, 401, 402, 403):
            raise self._misconfigured("XAI_API_KEY", status, body)
        elif status != 200:
            raise self._misconfigured("GROK_BASE_URL", status, body)

    async def check_calls(self) -> None:
        """A health check. Raises Retryable while the breaker pauses calls, with the failure that opened it."""
        if (outage := self._outage) is not None:
            status = "" if outage.status is None else f", status {outage.status}"
            cause = f"{self._url.host} fails ({outage.error_class}{status}): {outage.why}"
            raise Retryable(f"{cause}; calls have paused for {self._clock() - outage.began_s:.0f} s")

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises Retryable where another attempt may help."""
        assert self._session is not None, "start() comes before check()"
        url = URL(f"{self._base_url}/{path}", encoded=True)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                body = await _read_at_most(response, MAX_REPLY_BYTES)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise failure_of_exception(error, self._where).error from error
        if is_page(response.status, response.headers, body):
            answer = f"a page came from {self._where} with status {response.status}{self._quoted(body)}"
            raise Retryable(f"{answer}; check GROK_BASE_URL, and the proxies on the way")
        if is_passing(response.status, response.headers, body):
            raise Retryable(f"{self._where} answered with status {response.status}{self._quoted(body)}")
        return response.status, body

    def _misconfigured(self, setting: str, status: int, body: bytes) -> Retryable:
        detail = f"check {setting}: {self._where} answered with status {status}{self._quoted(body)}"
        return Retryable(detail, retry_after_s=CHECK_AGAIN_S)

    def _quoted(self, body: bytes) -> str:
        words = provider_words(body, self._api_key)
        return f": {words}" if words else ""

    async def analyse(self, text: str, on_unanswered: OnUnanswered = ignore_call) -> Answer:
        """The answer for one canonical text. A bad answer is asked for once more, and reported.

        Raises Retryable (also while the breaker is open), Unprocessable (refused, or bad answers only) or Fatal.
        """
        body = self._template.body(text)
        had_bad = text in self._had_bad_answer
        self._had_bad_answer.pop(text, None)
        while True:
            try:
                reply = await self._call(body, text, on_unanswered)
            except BadAnswer as error:
                if had_bad:
                    raise Unprocessable(DeadLetterReason.BAD_ANSWER, error.detail) from error
                had_bad = True
            except Retryable:
                if had_bad:
                    self._remember_bad(text)
                raise
            else:
                return Answer(reply.insight, reply.usage, reply.model or self._model, self._now())

    def _remember_bad(self, text: str) -> None:
        """A text's bad answer counts also when the next call fails otherwise: each text gets two answers at most."""
        self._had_bad_answer[text] = None
        if len(self._had_bad_answer) > self._max_connections:
            del self._had_bad_answer[next(iter(self._had_bad_answer))]

    async def _call(self, body: bytes, text: str, on_unanswered: OnUnanswered) -> Reply:
        """Makes one call and tells its result to the breaker, the observer and, without an answer, `on_unanswered`."""
        await self._wait_allowed()
        permit, began_s, call = self._admitted(), self._clock(), object()
        self._in_flight[call] = began_s
        fenced = _FencedBody(body, self._wait_allowed)
        try:
            reply = read_reply(await self._exchange(fenced), self._cost_per_1k_usd)
        except CallFailure as failure:
            self._settle(permit, failed=failure.trips_breaker)
            self._watch_outage(failure, text)
            self._observer.call_failed(failure.error_class, self._clock() - began_s, ambiguous=failure.ambiguous)
            if failure.ambiguous:
                on_unanswered(self._unanswered("ambiguous"))
            elif failure.status == 403 and isinstance(failure.error, Unprocessable):  # a fee that no reply names
                on_unanswered(self._unanswered("refused"))
            raise failure.error from failure
        except BadAnswer as error:
            self._settle(permit, failed=isinstance(error, UnreadableReply))
            self._watch_outage(CallFailure(error, "bad_answer", status=200), text)
            self._observer.call_failed("bad_answer", self._clock() - began_s, ambiguous=False, usage=error.usage)
            on_unanswered(self._unanswered("bad_answer", error.usage))
            raise
        except Refused as error:
            self._settle(permit, failed=False)
            self._observer.call_failed("client", self._clock() - began_s, ambiguous=False, usage=error.usage)
            on_unanswered(self._unanswered("refused", error.usage))
            raise
        except asyncio.CancelledError:
            # Given up by our side: of a call that was sent nothing is known, and it may be billed all the same.
            self._observer.call_failed("cancelled", self._clock() - began_s, ambiguous=fenced.is_sent)
            if fenced.is_sent:
                on_unanswered(self._unanswered("ambiguous"))
            raise
        except InsightsError:  # not sent, because this worker may make no calls any more
            raise
        except Exception:  # a defect of ours: the call may have been billed
            self._observer.call_failed("client", self._clock() - began_s, ambiguous=True)
            on_unanswered(self._unanswered("ambiguous"))
            raise
        else:
            self._settle(permit, failed=False)
            self._observer.call_succeeded(self._clock() - began_s, reply.usage)
            return reply
        finally:
            del self._in_flight[call]
            # Frees a probe's place whatever happened; after succeeded or failed it changes nothing.
            self._breaker.released(permit)

    def _unanswered(self, outcome: CallOutcome, usage: Usage = NOTHING) -> UnansweredCall:
        return UnansweredCall(outcome, self._model, self._now(), usage)

    async def _exchange(self, fenced: "_FencedBody") -> bytes:
        """The body of a 200 reply. Raises CallFailure, what `wait_allowed` raises, and UnreadableReply when the body is
        too large."""
        assert self._session is not None, "start() comes before analyse()"
        try:
            async with self._session.post(self._url, data=fenced, allow_redirects=False) as response:
                received = await _read_at_most(response, MAX_REPLY_BYTES + 1)
        except (aiohttp.ClientError, TimeoutError) as error:
            if fenced.refusal is not None:
                raise fenced.refusal from error
            if isinstance(error, TimeoutError) and not fenced.is_sent and not isinstance(error, aiohttp.ClientError):
                # It waited for the fence: nothing was sent, and the provider is not to blame.
                raise CallFailure(Retryable("the call was not sent in time"), "timeout") from error
            raise failure_of_exception(error, self._where) from error
        if response.status != 200 or is_page(200, response.headers, received):
            raise failure_of_status(response.status, response.headers, received, self._now())
        if len(received) > MAX_REPLY_BYTES:
            raise UnreadableReply(f"the reply is larger than {MAX_REPLY_BYTES} bytes")
        return received

    def _admitted(self) -> Permit:
        before = self._breaker.state
        permit = self._breaker.admit(self._clock())
        self._tell_change(before)
        if permit is None:
            self._observer.call_failed("breaker_open", 0.0, ambiguous=False)
            wait_s = self._breaker.retry_after_s(self._clock())
            raise Retryable("calls pause, since the provider failed repeatedly", retry_after_s=wait_s)
        return permit

    def _settle(self, permit: Permit, *, failed: bool) -> None:
        before = self._breaker.state
        if failed:
            self._breaker.failed(permit, self._clock())
        else:
            self._breaker.succeeded(permit)
        self._tell_change(before)

    def _tell_change(self, before: str) -> None:
        if self._breaker.state == before:
            return
        self._observer.breaker_changed(self._breaker.state)
        if self._breaker.state == "closed" and self._outage is not None:
            log.warning("grok_calls_resumed", paused_s=round(self._clock() - self._outage.began_s, 1))
            self._outage = None

    def _watch_outage(self, failure: CallFailure, text: str) -> None:
        """Logs the failure that opened the breaker; probes that fail after it are the same outage."""
        if self._breaker.state == "open" and self._outage is None:
            why = provider_words(failure.body, self._api_key, text) or str(failure)
            self._outage = _Outage(self._clock(), failure.error_class, failure.status, why)
            log.warning("grok_calls_paused", error_class=failure.error_class, status=failure.status, why=why)


class _FencedBody(BytesPayload):
    """Awaits `wait_allowed` in the very step that hands the request to the socket, headers included.

    Between an earlier question and that step aiohttp connects and starts a task. A worker that was frozen right there
    and continues long after would ask about a text that is another worker's by then.
    """

    def __init__(self, body: bytes, wait_allowed: Callable[[], Awaitable[None]]) -> None:
        super().__init__(body, content_type="application/json")
        self._wait_allowed = wait_allowed
        #: What `wait_allowed` raised: aiohttp reports a broken connection instead.
        self.refusal: InsightsError | None = None
        self.is_sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Raises what `wait_allowed` raises, with nothing sent."""
        try:
            await self._wait_allowed()
        except InsightsError as error:
            self.refusal = error
            raise
        self.is_sent = True
        await super().write_with_length(writer, content_length)


def address_of(url: URL) -> str:
    """Returns host and port, as shown in messages; the address of IPv6 in brackets."""
    return f"{url.host_subcomponent}:{url.port}"


def _proxy_of(url: URL) -> str | None:
    """The proxy that the environment names for the address. A proxy elsewhere cannot reach our own loopback."""
    host, setting = url.host or "", f"{url.scheme.upper()}_PROXY"
    proxy = getproxies().get(url.scheme)
    if proxy is None or is_loopback(host) or proxy_bypass(host):
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    if not address.startswith(("http://", "https://")):
        raise Fatal(f"{setting} cannot be used", "only HTTP proxies are supported", "set it to http://host:port")
    return address


def _model_ids(body: bytes) -> set[str]:
    try:
        return {model.id for model in msgspec.json.decode(body, type=_Models).data}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return set()


async def _read_at_most(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length <= max_bytes:
        return await response.read()
    received = bytearray()
    while len(received) < max_bytes and (chunk := await response.content.read(max_bytes - len(received))):
        received += chunk
    return bytes(received)
