"""Whether what an HTTP server has is a file or a feed: asked once, when a source is added. No video is opened."""

from __future__ import annotations

import re
from http.client import HTTPException, HTTPMessage
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from streamproc.errors import Misconfigured, Rejected, Unreachable
from streamproc.video import address

LOOK_S = 10.0
PLAYLIST_BYTES = 4 * 2**20
DEPTH = 3
"""Playlists of playlists."""
PLAYLISTS = ("mpegurl",)
OVER = "#EXT-X-ENDLIST"
LIVE_TYPES = ("multipart/x-mixed-replace",)


def endless(uri: str) -> bool:
    """A playlist that is still being written, pictures without end, or a body of no known length that begins nowhere else.

    What needs variables that are not set here is judged by its ending: whoever opens it may have them.
    """
    try:
        target = address.fill(uri)
    except Misconfigured:
        return urlsplit(uri).path.lower().endswith((".m3u8", ".mjpg", ".mjpeg"))
    return _endless(target, address.redact(uri), DEPTH)


def _endless(target: str, shown: str, depth: int) -> bool:
    headers, text = _look(target, shown)
    if text is None:
        kind = headers.get_content_type()
        whole = headers.get("Content-Length") or headers.get("Accept-Ranges", "none").lower() != "none"
        return kind in LIVE_TYPES or not whole
    variant = re.search(r"^#EXT-X-STREAM-INF.*\n(?:#.*\n)*([^#\s].*)$", text, re.MULTILINE)
    if variant and depth:
        return _endless(urljoin(target, variant[1].strip()), shown, depth - 1)
    return OVER not in text


def _look(target: str, shown: str) -> tuple[HTTPMessage, str | None]:
    """The headers; of a playlist its text."""
    try:
        with urlopen(Request(target, headers={"User-Agent": "streamproc"}), timeout=LOOK_S) as answer:
            headers: HTTPMessage = answer.headers
            path = urlsplit(target).path.lower()
            if path.endswith(".m3u8") or any(kind in headers.get_content_type() for kind in PLAYLISTS):
                return headers, answer.read(PLAYLIST_BYTES).decode(errors="replace").replace("\r", "")
            return headers, None
    except HTTPError as e:
        e.close()
        raise Rejected(
            f"{shown}: {e.code} {e.reason}"
        ) from None  # its own words may hold the address, and secrets in it
    except (OSError, HTTPException, ValueError) as e:
        told = getattr(e, "reason", None) or type(e).__name__
        raise Unreachable(shown, str(told), remedy="Is the address right, and is its server up?") from None
