"""Where pictures come from, as FFmpeg is told it and as people may read it. Opening it is container's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.errors import Misconfigured

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PASSWORD = re.compile(r"(//[^/@\s:]*):[^/@\s]*@")
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:token|key|secret|pass|sig)[^=&]*=)[^&#\s]+", re.IGNORECASE)

LIVE = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "webcam"})
SCHEMES = LIVE | {"http", "https", "file"}


@dataclass(frozen=True, slots=True)
class Address:
    """One place to read from. `target` may hold secrets; `shown` never does."""

    target: str
    shown: str
    scheme: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        return self.scheme == "file"


def parse(uri: str | Path, *, secrets: Mapping[str, str] | None = None) -> Address:
    """An address for FFmpeg. `${NAME}` is filled in from `secrets`, or the environment of whoever opens it."""
    text = os.fspath(uri)
    if text.startswith("webcam:"):
        number = text.removeprefix("webcam:")
        if not number.isdecimal():
            raise Misconfigured(f"'{text}': a webcam is 'webcam:' and its number, as in webcam:0")
        return Address(f"/dev/video{number}", text, "webcam", format="v4l2")
    found = _SCHEME.match(text)
    if not found:
        return Address(text, text, "file")  # a path; a $ in it is a $
    scheme = found[1].lower()
    if scheme == "file":
        path = text.removeprefix(found[0])
        return Address(path, path, "file")
    if scheme not in SCHEMES:
        raise Misconfigured(f"'{redact(text)}': no such kind of source; there are {', '.join(sorted(SCHEMES))}")
    return Address(fill(text, secrets), redact(text), scheme, options=_options(scheme))


def fill(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """`${NAME}` replaced by what this process knows under that name."""
    known = os.environ if secrets is None else secrets

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise Misconfigured(f"'{redact(text)}' needs the variable {found[1]}, which is not set here")
        return known[found[1]]

    return _VARIABLE.sub(value, text)


def redact(text: str) -> str:
    """Without passwords and keys; `${NAME}` stays, since it says nothing."""
    text = _PASSWORD.sub(lambda m: m[0] if _VARIABLE.search(m[0]) else f"{m[1]}:***@", text)
    return _QUERY_SECRET.sub(lambda m: m[0] if _VARIABLE.search(m[0]) else f"{m[1]}***", text)


def _options(scheme: str) -> dict[str, str]:
    if scheme in {"rtsp", "rtsps"}:
        return {"rtsp_transport": "tcp", "timeout": "10000000"}  # over UDP pictures tear; µs
    if scheme in {"http", "https"}:
        # Redirects end, and an answer cannot make us read local files or other hosts' protocols.
        return {"protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,data", "max_redirects": "8"}
    return {}
