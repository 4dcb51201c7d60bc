"""The observer over HTTP: OpenAI's chat completions as vLLM serves them, streamed too, with its header of load.

The header `x-observer` makes one call go wrong (`faults`), so that tests run on the real path of HTTP.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from streamproc.models.observer.chat import Observer, Refusal, Settings
from streamproc.models.observer.faults import fault_of


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    observer = Observer(settings)
    app = FastAPI(title="streamproc observer", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.observer = observer

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        try:
            _let_in(settings, request)
        except Refusal as e:
            return _refused(e)
        data = [{"id": settings.model, "object": "model", "created": 0, "owned_by": "streamproc"}]
        return _json({"object": "list", "data": data})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        data = await request.body()
        observer.calls += 1
        observer.under_way += 1
        try:
            _let_in(settings, request)
            fault = fault_of(request.headers.get("x-observer"), observer.times_failed)
            if fault is not None and (response := await fault.instead()) is not None:
                return response
            await asyncio.sleep(settings.seconds)
            body = _object(data)
            answer = await asyncio.to_thread(observer.answer, body, fault)
            headers = observer.load(request.headers.get("endpoint-load-metrics-format", ""))
            if body.get("stream") and "stream" in settings.honours:
                usage = bool((body.get("stream_options") or {}).get("include_usage"))
                return StreamingResponse(_events(answer, usage=usage), media_type="text/event-stream", headers=headers)
            return _json(answer, headers=headers)
        except Refusal as e:
            return _refused(e)
        finally:
            observer.under_way -= 1

    return app


def _let_in(settings: Settings, request: Request) -> None:
    if settings.key is not None and request.headers.get("authorization") != f"Bearer {settings.key}":
        raise Refusal(401, "Incorrect API key provided", kind="AuthenticationError")


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise Refusal(400, f"JSON decode error: {e}") from e
    if not isinstance(body, dict):
        raise Refusal(400, "The body is no object")
    return body


def _json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _refused(e: Refusal) -> Response:
    return _json({"error": {"message": e.message, "type": e.kind, "param": None, "code": e.status}}, status=e.status)


async def _events(answer: dict[str, Any], *, usage: bool) -> AsyncIterator[bytes]:
    """The same answer, word by word."""
    head = {k: answer[k] for k in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for choice in answer["choices"]:
        logprobs = (choice["logprobs"] or {}).get("content") or []
        words = re.findall(r"\s*\S+|\s+$", choice["message"].get("content") or "")
        for i, word in enumerate(words):
            some = {"content": logprobs[i : i + 1]} if logprobs else None
            yield _event(head, [{"index": choice["index"], "delta": {"content": word}, "logprobs": some}])
            await asyncio.sleep(0)
        delta = {k: v for k, v in choice["message"].items() if k not in {"content", "role"}}
        yield _event(head, [{"index": choice["index"], "delta": delta, "finish_reason": choice["finish_reason"]}])
    if usage:
        yield _event(head, [], usage=answer["usage"])
    yield b"data: [DONE]\n\n"


def _event(head: dict[str, Any], choices: list[Any], **more: Any) -> bytes:
    return b"data: " + orjson.dumps({**head, "choices": choices, **more}) + b"\n\n"


class _Server(uvicorn.Server):
    """Leaves the signals to the process it is in."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def running(
    settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[str, Observer]]:
    """The observer in this loop: its URL, ending in /v1, and what it remembers. Port 0 is any that is free."""
    app = create_app(settings)
    config = uvicorn.Config(app, host, port, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=5)
    config.load()
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if serving.done():
                serving.result()
                raise RuntimeError(f"the observer did not start on {host}:{port}")
            await asyncio.sleep(0.005)
        where = server.servers[0].sockets[0].getsockname()
        yield f"http://{where[0]}:{where[1]}/v1", app.state.observer
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving
