"""httpx2's transport over one aiohttp session: what carries the bytes of every model call.

It moves requests and answers and says what went wrong in httpx2's words, so that the openai client understands it.
It knows no model, no prompt, no retry. Why not httpx2's own pool: at 1,000 calls in flight that costs 27 times the CPU.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

KEEP_ALIVE_S: Final = 3.0
"""vLLM closes idle connections after 5 s; a connection we close first is never one it closes under a request."""

LARGE_BODY_BYTES: Final = 2**20
"""From here on aiohttp wants a file, which it writes piece by piece instead of at one go."""

FAILURES: Final[tuple[tuple[type[BaseException], type[httpx2.RequestError]], ...]] = (
    # The first that fits; aiohttp's tree is older than its meaning, so the order matters.
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (TimeoutError, httpx2.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx2.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx2.ProxyError),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ServerFingerprintMismatch, httpx2.ConnectError),
    (aiohttp.ServerConnectionError, httpx2.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
    (aiohttp.UploadAbortedError, httpx2.WriteError),
    (aiohttp.InvalidURL, httpx2.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx2.UnsupportedProtocol),
    (aiohttp.ClientError, httpx2.ReadError),
    (OSError, httpx2.ReadError),
)


def translated(kind: type[BaseException]) -> type[httpx2.RequestError] | None:
    """What httpx2 would have raised; None where it is no failure of the network."""
    return next((ours for theirs, ours in FAILURES if issubclass(kind, theirs)), None)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """One session for all clients of a process. `answer_bytes` bounds what an answer may hold."""

    def __init__(self, *, answer_bytes: int = 8 * 2**20) -> None:
        self.answer_bytes = answer_bytes
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        """Made on first use: a session belongs to the loop it is made in."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,  # costs a thread a request, and lets .netrc write over the key; `_proxy` is what is left
            )
        return self._session

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread() or None
        try:
            response = await self._open().request(
                request.method,
                _url(str(request.url)),
                data=io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body,
                headers=_headers(request),
                proxy=_proxy(request.url.scheme, request.url.host),
                allow_redirects=False,
                timeout=_timeout(**request.extensions.get("timeout", {})),
            )
        except (aiohttp.ClientError, OSError) as e:
            raise _as_httpx2(e) from e
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode("ascii", "replace")}
        answer = _Answer(response, self.answer_bytes)
        if response.content_type == "text/event-stream":
            return httpx2.Response(response.status, headers=response.raw_headers, stream=answer, extensions=extensions)
        # Nobody waits for the pieces of anything else, and read here it does not pass through five generators.
        try:
            content = b"".join([piece async for piece in answer])
        finally:
            await answer.aclose()
        return httpx2.Response(response.status, headers=response.raw_headers, content=content, extensions=extensions)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Answer(httpx2.AsyncByteStream):
    """The body as it comes in. Closed before its end, the connection goes too: cancelling a call frees the server."""

    def __init__(self, response: aiohttp.ClientResponse, limit: int) -> None:
        self._response, self._limit = response, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            async for piece in self._response.content.iter_any():
                left -= len(piece)
                if left < 0:
                    raise httpx2.DecodingError(f"the answer is larger than {self._limit} bytes")
                yield piece
        except (aiohttp.ClientError, OSError) as e:
            raise _as_httpx2(e) from e

    async def aclose(self) -> None:
        self._response.close()


def _as_httpx2(e: BaseException) -> httpx2.RequestError:
    error = translated(type(e))
    assert error is not None, "aiohttp.ClientError and OSError stand at the end of FAILURES"
    return error(str(e) or type(e).__name__)


def _headers(request: httpx2.Request) -> list[tuple[str, str]]:
    """Without openai's description of this machine: that is nobody's business, and costs as much as the rest."""
    return [
        (name, value)
        for name, value in request.headers.multi_items()
        if not name.startswith("x-stainless-") and name not in _OURS
    ]


_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
"""Set by aiohttp, or by the session: a compressed answer of one kilobyte only costs time."""


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


@lru_cache(maxsize=256)
def _proxy(scheme: str, host: str) -> str | None:
    """As HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


@lru_cache(maxsize=64)
def _timeout(
    *, connect: float | None = None, read: float | None = None, write: float | None = None, pool: float | None = None
) -> aiohttp.ClientTimeout:
    """`read` is between two reads, so a dripping answer outlives it: whoever calls sets a deadline. `write` and `pool`
    have no counterpart."""
    del write, pool
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)


__all__ = ["FAILURES", "AiohttpTransport", "translated"]
