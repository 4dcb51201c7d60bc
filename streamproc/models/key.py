"""An endpoint's key in what its server says: some quote it back, in errors, in pages of a proxy, in the answer itself.

It is struck out of the bytes before anybody reads them, so that no message, record, log or metric can hold it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

STRUCK: Final = b"***"


SHORTEST: Final = 16
"""What is shorter is a word (EMPTY, ollama, token-abc123), no key, and may stand in an answer for what it means."""


def struck(data: bytes, secret: str | None) -> bytes:
    return data.replace(secret.encode(), STRUCK) if secret and len(secret) >= SHORTEST else data


async def struck_pieces(pieces: AsyncIterable[bytes], secret: str | None) -> AsyncIterator[bytes]:
    """Also where it stands in two pieces. Only what may be its beginning waits for the next one."""
    key, held = secret.encode() if secret and len(secret) >= SHORTEST else b"", b""
    async for piece in pieces:
        data = struck(held + piece, secret)
        waits = next((n for n in range(min(len(key) - 1, len(data)), 0, -1) if data.endswith(key[:n])), 0)
        held = data[len(data) - waits :]
        if said := data[: len(data) - waits]:
            yield said
    if held:
        yield held
