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
_PASSWORD = re.compile(r"(//[^/\s:]*:)([^/\s]*)(?=@)")
"""As FFmpeg reads it: to the last @ before the path."""
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:token|key|secret|pass|pwd|auth|cred|sig)[^=&]*=)([^&#\s]+)", re.IGNORECASE)

STACK = "stack:"
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
    under: Address | None = None
    """Of a pair: what stands below this in one picture."""

    @property
    def is_file(self) -> bool:
        return self.scheme == "file"


def parse(uri: str | Path, *, secrets: Mapping[str, str] | None = None) -> Address:
    """An address for FFmpeg. `${NAME}` is filled in from `secrets`, or the environment of whoever opens it."""
    text = os.fspath(uri)
    scheme = scheme_of(text)
    if scheme == "stack":
        top, bottom = halves(text)
        return Address(top, text, "file", under=Address(bottom, text, "file"))
    if scheme == "webcam":
        return Address(f"/dev/video{text.removeprefix('webcam:')}", text, "webcam", format="v4l2")
    if scheme == "file":
        path = text.removeprefix("file://")
        return Address(path, path, "file")  # a $ in a path is a $
    return Address(fill(text, secrets), redact(text), scheme, options=_options(scheme))


def scheme_of(text: str) -> str:
    """Which kind of source an address is; Misconfigured where it is none."""
    if text.startswith("webcam:"):
        if not text.removeprefix("webcam:").isdecimal():
            raise Misconfigured(f"'{text}': a webcam is 'webcam:' and its number, as in webcam:0")
        return "webcam"
    if text.startswith(STACK):
        return "stack"
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else "file"
    if scheme not in SCHEMES:
        raise Misconfigured(f"'{redact(text)}': no such kind of source; there are {', '.join(sorted(SCHEMES))}")
    return scheme


def halves(uri: str) -> tuple[str, str]:
    """TOP and BOTTOM of a pair. A plus may stand in a name, so the one that parts two paths that are there counts."""
    text = uri.removeprefix(STACK)
    cuts = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "+"]
    there = [cut for cut in cuts if all(half and Path(half).exists() for half in cut)]
    if len(there) == 1:
        return there[0]
    problem = "could be parted at more than one '+'" if there else "are no two files or folders that are there"
    raise Misconfigured(f"'{uri}': TOP+BOTTOM {problem}")


def fill(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """`${NAME}` replaced by what this process knows under that name."""
    known = os.environ if secrets is None else secrets

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name in known:
            return known[name]
        if f"{name}_FILE" in known:  # as Docker and Kubernetes hand out secrets
            return _secret(name, Path(known[f"{name}_FILE"]))
        raise Misconfigured(f"'{redact(text)}' needs the variable {name} (or {name}_FILE), which is not set here")

    return _VARIABLE.sub(value, text)


def _secret(name: str, file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeError) as e:
        told = e.strerror if isinstance(e, OSError) else "is no text"
        raise Misconfigured(f"{name}_FILE, {file}: {told}") from None


def literal(uri: str) -> bool:
    """A password or key stands in it as it is, and not as `${NAME}`."""
    return redact(uri) != uri


def redact(text: str) -> str:
    """Without passwords and keys; `${NAME}` stays, since it says nothing."""
    return _QUERY_SECRET.sub(_hidden, _PASSWORD.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}***" if _VARIABLE.sub("", found[2]) else found[0]


def _options(scheme: str) -> dict[str, str]:
    if scheme in {"rtsp", "rtsps"}:
        return {"rtsp_transport": "tcp", "timeout": "10000000"}  # over UDP pictures tear; µs
    if scheme in {"http", "https"}:
        # Redirects end, and an answer cannot make us read local files or other hosts' protocols.
        return {
            "protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,data",
            "max_redirects": "8",
            "reconnect": "1",  # a file that is cut off is read on from there
            "reconnect_delay_max": "4",
        }
    return {}
