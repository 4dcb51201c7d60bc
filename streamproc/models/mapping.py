"""Which error of openai, or of the network below it, means which of ours.

The status decides. Text is read only where servers give one status to opposite things: a cache miss, too much, out of
memory and a bad schema all come as 400.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
import openai

from streamproc.errors import StreamprocError, Throttled, Unreachable
from streamproc.models.failures import (
    BadRequest,
    CacheMiss,
    Garbled,
    Interrupted,
    OutOfMemory,
    Overdue,
    QuotaSpent,
    Refused,
    ServerFailed,
    TooMuch,
)

_MISS: Final = re.compile(r"cache miss|data is not provided", re.I)
_IMAGES: Final = re.compile(r"at most (\d+) (?:image|video)|(?:too many|maximum .{0,20}) ?(?:image|video)s?", re.I)
_TOKENS: Final = re.compile(
    r"(?:maximum|max) (?:context|model) len(?:gth)?\D{0,30}(\d+)?|context[_ ](?:length|window|size)|longer than the max",
    re.I,
)
_MEMORY: Final = re.compile(r"out of memory|outofmemory", re.I)
_FILTERED: Final = re.compile(r"content[_ ](?:filter|policy|management)|responsible ?ai|moderation|flagged", re.I)
_SPENT: Final = re.compile(r"insufficient[_ ](?:quota|credit|balance)|(?-i:PerDay)", re.I)
_PERHAPS_SPENT: Final = re.compile(r"per[-_ ]day|daily|exceeded your current quota", re.I)
"""Said of limits by the minute, too: Gemini opens all its refusals so, and others list what all their limits are."""
_MINUTE: Final = re.compile(r"per[-_ ]?min", re.I)
_DELAY: Final = re.compile(
    r"(?:retry ?delay\W+|(?:retry|try again) (?:in|after) )(?:(\d+)m)?(\d+(?:\.\d+)?) ?(ms|s)", re.I
)

LONGEST_REST_S: Final = 31 * 86_400.0
"""Quotas are by the month at most; who asks for more errs."""


def failure(e: openai.OpenAIError, *, hop: str, secret: str | None) -> StreamprocError:
    """Ours for theirs. `hop` names the endpoint; `secret` is struck out of what the server said."""
    match e:
        case openai.APIConnectionError():
            return broken(e.__cause__, hop=hop, secret=secret)
        case openai.APIStatusError():
            return _status(e, hop, secret)
        case _:
            return Garbled(f"{hop}: {_clean(str(e), secret)}")


def broken(e: BaseException | None, *, hop: str, secret: str | None) -> StreamprocError:
    """Ours for an error of the network."""
    said = _clean(f"{type(e).__name__}: {e}", secret)
    match e:
        case httpx2.TimeoutException():
            return Overdue(f"{hop}: {said}")
        case httpx2.ConnectError() | httpx2.ProxyError() | httpx2.UnsupportedProtocol():
            return Unreachable(
                hop, said, remedy="Is it running, and is its URL right? `streamproc doctor` tests every hop"
            )
        case httpx2.DecodingError():
            return Garbled(f"{hop}: {said}")
        case _:
            return Interrupted(f"{hop}: {said}")


def _status(e: openai.APIStatusError, hop: str, secret: str | None) -> StreamprocError:
    status, said = e.status_code, _clean(_said(e), secret)
    text = f"{hop}: {status} {said}"
    wait_s = retry_after_s(e.response.headers)
    if status in {429, 402}:
        if status == 402 or e.code == "insufficient_quota" or _spent(str(e.body)):
            return QuotaSpent(text, retry_after_s=wait_s)
        return Throttled(text, retry_after_s=_delay_s(str(e.body)) if wait_s is None else wait_s)
    if status in {503, 529} and not _MEMORY.search(said):
        return Throttled(text, retry_after_s=wait_s) if wait_s is not None or status == 529 else ServerFailed(text)
    if status in {401, 403} and _FILTERED.search(said):
        return Refused(text)
    if status in {401, 403}:
        return Unreachable(
            hop, f"{status} {said}", remedy="Check the key: `api_key_env` names the variable that holds it"
        )
    if status == 404:
        return Unreachable(
            hop, f"404 {said}", remedy="Check the URL and `served_name`; `streamproc models check` lists what it serves"
        )
    if status < 400:
        return Unreachable(
            hop,
            f"it redirects ({status}) to {_clean(str(e.response.headers.get('location')), secret)}",
            remedy="Write the URL it redirects to",
        )
    if _MEMORY.search(said):
        return OutOfMemory(text)
    if status in {408, 409, 425} or status >= 500:
        return ServerFailed(text)
    return _bad(status, said, text)


def _spent(told: str) -> bool:
    """`told` is all of it: which limit it was often stands far below the sentence."""
    if _SPENT.search(told):
        return True
    return bool(_PERHAPS_SPENT.search(told)) and not _MINUTE.search(told) and _delay_s(told) is None


def _delay_s(told: str) -> float | None:
    """The rest that is asked for in words, where no header does."""
    if not (found := _DELAY.search(told)):
        return None
    seconds = float(found[2]) / (1000 if found[3].lower() == "ms" else 1) + 60 * int(found[1] or 0)
    return seconds if seconds <= LONGEST_REST_S else None


def _bad(status: int, said: str, text: str) -> StreamprocError:
    if _MISS.search(said):
        return CacheMiss(text)
    if _FILTERED.search(said):
        return Refused(text)
    if status == 413:
        return TooMuch(text, of="bytes")
    if found := _IMAGES.search(said):
        return TooMuch(text, of="images", limit=int(found[1]) if found[1] else None)
    if found := _TOKENS.search(said):
        return TooMuch(text, of="tokens", limit=int(found[1]) if found[1] else None)
    return BadRequest(text)


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds, or a date by the server's own clock, or openai's milliseconds; None where nothing can be read or believed."""
    try:
        seconds = _rest_s(headers)
    except (ValueError, TypeError, KeyError):
        return None
    return seconds if 0 <= seconds <= LONGEST_REST_S else None  # so that neither infinity nor NaN passes


def _rest_s(headers: httpx2.Headers) -> float:
    if (ms := headers.get("retry-after-ms")) is not None:
        return float(ms) / 1000
    value = headers["retry-after"]
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds())


def _said(e: openai.APIStatusError) -> str:
    """The server's own sentence: OpenAI's, vLLM's, FastAPI's and Gemini's spellings."""
    body: Any = e.body
    if isinstance(body, list) and body:  # Gemini's
        body = body[0]
    if isinstance(body, dict):
        body = body.get("error", body)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body if body else e.message)


def _clean(text: str, secret: str | None) -> str:
    """Short, on one line, without the key: servers like to quote it back."""
    text = " ".join(text.split())
    return (text.replace(secret, "***") if secret else text)[:500]
