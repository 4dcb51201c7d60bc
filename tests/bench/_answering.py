"""A socket that answers every POST with the same chat completion after a while, at next to no cost: `… SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"[{\\"label\\": \\"goal\\", \\"confidence\\": 0.9}]"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1371,"completion_tokens":20,"total_tokens":1391}}'
)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)


class Answering(asyncio.Protocol):
    def __init__(self, seconds: float) -> None:
        self.seconds, self.head, self.left = seconds, bytearray(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.left -= len(data)
        else:
            self.head += data
            if (end := self.head.find(b"\r\n\r\n")) < 0:
                return
            length = self.head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.left = int(length) - (len(self.head) - end - 4)
            self.head.clear()
        if self.left == 0:
            asyncio.get_running_loop().call_later(self.seconds, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(WHOLE)


async def main() -> None:
    seconds = float(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(seconds), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
