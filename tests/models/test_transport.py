"""The transport between httpx2 and aiohttp, on sockets that do what servers do on bad days."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import aiohttp
import aiohttp.client_exceptions
import httpx2
import pytest

from streamproc.models.transport import AiohttpTransport, translated
from tests.models.test_endpoint import serving

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = AiohttpTransport(answer_bytes=2**20)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        yield client


async def _asked(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def _answers(*pieces: bytes) -> object:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _asked(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((), httpx2.RemoteProtocolError),
        ((b"SSH-2.0-OpenSSH_9.6\r\n\r\n",), httpx2.RemoteProtocolError),
        ((OK + b"content-length: 100\r\n\r\n", b"{"), httpx2.ReadError),
        ((OK + b"transfer-encoding: chunked\r\n\r\n", b"zz\r\n"), httpx2.TransportError),
        ((OK + b"content-length: 2000000\r\n\r\n", b" " * 2_000_000), httpx2.DecodingError),
    ],
    ids=["silence", "not-http", "truncated", "bad-chunk", "too-large"],
)
async def test_what_a_server_does_wrong_is_said_in_httpx2s_words(
    client: httpx2.AsyncClient, pieces: tuple[bytes, ...], error: type[httpx2.RequestError]
) -> None:
    async with serving(_answers(*pieces)) as url:  # type: ignore[arg-type]  # a closure is no Callable to mypy here
        with pytest.raises(error):
            await client.post(url, content=b"{}")


async def test_nobody_there_is_a_connect_error(client: httpx2.AsyncClient) -> None:
    async with serving(_answers()) as url:  # type: ignore[arg-type]  # as above
        pass
    with pytest.raises(httpx2.ConnectError):
        await client.post(url, content=b"{}")
    with pytest.raises(httpx2.ConnectError):
        await client.post("http://no-such-host.invalid/v1", content=b"{}")
    with pytest.raises(httpx2.UnsupportedProtocol):
        await client.post("ftp://127.0.0.1/v1", content=b"{}")


async def test_an_answer_that_stops_coming_is_a_read_timeout(client: httpx2.AsyncClient) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _asked(reader)
        writer.write(OK + b"content-length: 10\r\n\r\n{")
        await reader.read()
        writer.close()

    async with serving(handle) as url:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(url, content=b"{}", timeout=httpx2.Timeout(0.1))


async def test_cancelling_a_call_closes_its_socket(client: httpx2.AsyncClient) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _asked(reader)
        asked.set()
        await reader.read()
        closed.set()
        writer.close()

    async with serving(handle) as url:
        call = asyncio.create_task(client.post(url, content=b"{}"))
        await asked.wait()
        call.cancel()
        await asyncio.wait_for(closed.wait(), 5)
    assert call.cancelled()


async def test_connections_are_kept_and_bodies_of_any_size_arrive(client: httpx2.AsyncClient) -> None:
    connections, sizes = 0, list[int]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while not reader.at_eof():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
            sizes.append(len(await reader.readexactly(length)))
            assert b"x-stainless" not in head.lower()
            assert b"accept-encoding: identity" in head.lower()
            writer.write(OK + b"content-length: 2\r\nset-cookie: a=b\r\n\r\n{}")
        writer.close()

    async with serving(handle) as url:
        for size in (1, 1000, 3_000_000):
            response = await client.post(url, content=b"x" * size, headers={"x-stainless-os": "Linux"})
            assert response.json() == {}
        await client.aclose()
    assert (connections, sizes) == (1, [1, 1000, 3_000_000])


async def test_a_stream_comes_piece_by_piece(client: httpx2.AsyncClient) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n")
        await go_on.wait()
        writer.write(b"data: 2\n\n")
        await writer.drain()
        writer.close()

    async with serving(handle) as url, client.stream("POST", url, content=b"{}") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        go_on.set()
        assert await anext(pieces) == b"data: 2\n\n"
        await pieces.aclose()


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = list[bytes]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await _asked(reader))
        writer.write(OK + b"content-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with serving(handle) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "other.invalid")
        async with httpx2.AsyncClient(transport=AiohttpTransport(), trust_env=False) as client:
            await client.post("http://behind-a-proxy.invalid/v1", content=b"{}")
    assert heads[0].startswith(b"POST http://behind-a-proxy.invalid/v1 ")


def test_every_error_of_aiohttp_is_translated() -> None:
    kinds = [
        kind
        for name in aiohttp.client_exceptions.__all__
        if inspect.isclass(kind := getattr(aiohttp.client_exceptions, name)) and issubclass(kind, Exception)
    ]
    assert len(kinds) >= 28
    for kind in kinds:
        if kind is aiohttp.WSMessageTypeError:
            continue  # of WebSockets, which nothing here opens
        error = translated(kind)
        assert error is not None, kind
        assert issubclass(error, httpx2.TransportError), kind


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (TimeoutError, httpx2.ReadTimeout),
        (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
        (aiohttp.SocketTimeoutError, httpx2.ReadTimeout),
        (aiohttp.ClientPayloadError, httpx2.ReadError),
        (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
        (aiohttp.ClientConnectionResetError, httpx2.ReadError),
        (ConnectionResetError, httpx2.ReadError),
    ],
)
def test_what_aiohttp_says_is_not_flattened_to_timeouts(
    theirs: type[BaseException], ours: type[httpx2.RequestError]
) -> None:
    assert translated(theirs) is ours


def test_what_is_no_failure_of_the_network_is_left_alone() -> None:
    assert translated(KeyError) is None
