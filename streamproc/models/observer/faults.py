"""What goes wrong on request: `x-observer: 429`, `x-observer: slow=2`, `x-observer: garbage; times=2; id=a`.

    NNN             that status; `retry-after=S` goes with it
    slow=S, hang    an answer after S seconds, or never
    garbage         a 200 that is no JSON
    cut             a 200 that ends in the middle of its JSON
    empty, silent   no choices; a choice without content
    refuse, filter  the model's refusal; the filter's
    length          cut short, by length
    nan, utf8       NaN where a number stands; bytes that are no UTF-8
    huge=BYTES      a very long answer
    model=NAME      answers under another name
    fence, prose, think    the answer in a Markdown fence, in prose, after a thought
    miss            the pictures are not there
    oom             out of memory

`times=N` lets it happen N times for each `id`, then no more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Response


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    value: str
    retry_after: str | None

    @property
    def model(self) -> str | None:
        return self.value if self.kind == "model" else None

    async def instead(self) -> Response | None:
        """The answer in place of the real one; None where the real one follows."""
        match self.kind:
            case "slow":
                await asyncio.sleep(float(self.value))
            case "hang":
                await asyncio.Event().wait()
            case "garbage":
                return Response(b"<html>Bad gateway? No: all is well.</html>", 200, media_type="text/html")
            case "cut":
                return Response(b'{"choices": [{"message": {"content": "[{', 200, media_type="application/json")
            case "empty":
                return Response(b'{"model": "observer", "choices": []}', 200, media_type="application/json")
            case "nan":
                return Response(
                    b'{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}'
                )
            case "utf8":
                return Response(
                    b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', 200, media_type="application/json"
                )
            case "miss":
                return _said(400, "Cache miss for item with uuid 'x', but its data is not provided")
            case "oom":
                return _said(500, "CUDA out of memory. Tried to allocate 2.00 GiB")
            case status if status.isdigit():
                return _said(int(status), "on request", {"retry-after": self.retry_after} if self.retry_after else {})
        return None

    def text(self, text: str) -> str:
        match self.kind:
            case "fence":
                return f"```json\n{text}\n```"
            case "prose":
                return f"Here is what I see:\n{text}\nLet me know if you need more."
            case "think":
                return f"<think>What is there to see?</think>\n{text}"
            case "huge":
                return "a" * int(self.value)
            case _:
                return text

    def choice(self, choice: dict[str, Any]) -> None:
        match self.kind:
            case "silent":
                choice["message"]["content"] = None
            case "refuse":
                choice["message"] = {
                    "role": "assistant",
                    "content": None,
                    "refusal": "I'm sorry, I can't help with that.",
                }
            case "filter":
                choice["finish_reason"] = "content_filter"
                choice["message"]["content"] = ""
            case "length":
                text = choice["message"]["content"]
                choice["message"]["content"], choice["finish_reason"] = text[: len(text) * 2 // 3], "length"


def fault_of(header: str | None, happened: dict[str, int]) -> Fault | None:
    if not header:
        return None
    first, *rest = (part.strip() for part in header.split(";"))
    options = dict(part.partition("=")[::2] for part in rest)
    kind, _, value = first.partition("=")
    if "times" in options:
        ident = options.get("id", header)
        happened[ident] = happened.get(ident, 0) + 1
        if happened[ident] > int(options["times"]):
            return None
    return Fault(kind, value, options.get("retry-after"))


def _said(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {"error": {"message": message, "type": "Fault", "param": None, "code": status}}
    return Response(orjson.dumps(body), status, headers, "application/json")
