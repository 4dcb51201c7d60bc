"""A camera: an RTSP server over TCP that shows a file of H.264 again and again, and breaks when it is told to.

RFC 2326 as far as clients need it, with Digest passwords, and RFC 6184's packets made here, so that timestamps can jump. `python -m tests.video.rtsp FILE [PACE]` is one by itself: it says
its port, then the number of each frame and when it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import av

MTU = 1400
CLOCK = 90_000
REALM, NONCE = "camera", "7f3a"


@dataclass(frozen=True)
class Shown:
    """One frame as it is sent."""

    time_s: float
    nals: list[bytes]
    key: bool


def frames(path: Path) -> list[Shown]:
    """Of an MPEG-TS file, whose packets are as a camera makes them."""
    found: list[Shown] = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size and packet.pts is not None and packet.time_base:
                nals = [nal for nal in re.split(rb"\x00\x00\x00?\x01", bytes(packet)) if nal]
                found.append(Shown(float(packet.pts * packet.time_base), nals, packet.is_keyframe))
    first = found[0].time_s
    return [Shown(one.time_s - first, one.nals, one.key) for one in found]


@dataclass
class Camera:
    """Runs within a test's loop."""

    path: Path
    user: str | None = None
    password: str = ""
    pace: float = 1.0
    """Times as fast as the clock."""
    start_ticks: int = 2**32 - 2 * CLOCK
    """The first timestamp; it wraps two seconds later."""
    port: int = 0
    jump_s: float = 0
    """Added to every timestamp from now on."""
    silent: bool = False
    connections: int = 0
    on_sent: Callable[[int, float], None] = lambda _number, _time_s: None
    """Told the number of a frame since the camera was switched on, and when its last byte was given to the network."""
    _server: asyncio.Server | None = None
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        who = f"{self.user}:{self.password}@" if self.user else ""
        return f"rtsp://{who}127.0.0.1:{self.port}/live"

    async def __aenter__(self) -> Self:
        self._frames = frames(self.path)
        self._length_s = self._frames[-1].time_s + 0.04
        await self.switch_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.switch_off()

    async def switch_on(self) -> None:
        """At the port it had before, if it had one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._began = time.monotonic()

    async def switch_off(self) -> None:
        """As by the plug: nobody is told."""
        if self._server:
            self._server.close()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing: asyncio.Task[None] | None = None
        try:
            while True:
                method, headers = await _request(reader)
                if method == "":
                    continue  # a receiver's report
                status, more, body = self._answer(method, headers)
                lines = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '0')}", *more]
                lines += [f"Content-Length: {len(body)}"] if body else []
                writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
                if method == "PLAY" and status.startswith("200"):
                    self.connections += 1
                    playing = asyncio.ensure_future(self._play(writer))
                if method == "TEARDOWN":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            if playing:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            writer.transport.abort()

    def _answer(self, method: str, headers: dict[str, str]) -> tuple[str, list[str], str]:
        if method == "OPTIONS":
            return "200 OK", ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"], ""
        if not self._allowed(method, headers):
            return "401 Unauthorized", [f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}"'], ""
        if method == "DESCRIBE":
            return "200 OK", ["Content-Type: application/sdp", f"Content-Base: {_bare(self.url)}/"], self._sdp()
        if method == "SETUP":
            return "200 OK", ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1;timeout=60"], ""
        return "200 OK", ["Session: 1"], ""

    def _allowed(self, method: str, headers: dict[str, str]) -> bool:
        if self.user is None:
            return True
        told = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
        first = _md5(f"{self.user}:{REALM}:{self.password}")
        asked = _md5(f"{method}:{told.get('uri')}")
        return told.get("response") == _md5(f"{first}:{NONCE}:{asked}")

    def _sdp(self) -> str:
        sps, pps = (next(n for n in self._frames[0].nals if n[0] & 31 == kind) for kind in (7, 8))
        sets = ",".join(base64.b64encode(nal).decode() for nal in (sps, pps))
        return "\r\n".join(
            (
                "v=0",
                "o=- 0 0 IN IP4 127.0.0.1",
                "s=camera",
                "c=IN IP4 0.0.0.0",
                "t=0 0",
                "m=video 0 RTP/AVP 96",
                f"a=rtpmap:96 H264/{CLOCK}",
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
                "a=control:track1",
                "",
            )
        )

    async def _play(self, writer: asyncio.StreamWriter) -> None:
        """What the camera sees now: a client that comes later comes in mid-GOP."""
        sequence = 0
        now_s = (time.monotonic() - self._began) * self.pace
        for number in count(int(now_s / self._length_s * len(self._frames)) + 1):
            turn, which = divmod(number, len(self._frames))
            frame = self._frames[which]
            time_s = turn * self._length_s + frame.time_s
            await asyncio.sleep(max(0.0, time_s / self.pace - (time.monotonic() - self._began)))
            if writer.is_closing():
                return
            if self.silent:
                continue
            ticks = (self.start_ticks + round((time_s + self.jump_s) * CLOCK)) % 2**32
            packets = list(_packets(frame.nals, ticks, sequence))
            sequence = (sequence + len(packets)) % 2**16
            writer.write(b"".join(packets))
            await writer.drain()
            self.on_sent(number, time.monotonic())


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    first = await reader.readexactly(1)
    if first == b"$":
        head = await reader.readexactly(3)
        await reader.readexactly(int.from_bytes(head[1:], "big"))
        return "", {}
    text = (first + await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rest = text.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
    await reader.readexactly(int(headers.get("content-length", 0)))
    return line.split()[0], headers


def _packets(nals: list[bytes], ticks: int, sequence: int) -> Iterator[bytes]:
    """RFC 6184: a NAL unit a packet, larger ones in fragments; the last packet of a frame is marked."""
    payloads: list[bytes] = []
    for nal in nals:
        if len(nal) <= MTU:
            payloads.append(nal)
            continue
        head, body = nal[0], nal[1:]
        pieces = [body[i : i + MTU] for i in range(0, len(body), MTU)]
        for i, piece in enumerate(pieces):
            edge = 0x80 * (i == 0) | 0x40 * (i == len(pieces) - 1)
            payloads.append(bytes([head & 0xE0 | 28, edge | head & 31]) + piece)
    for i, payload in enumerate(payloads):
        mark = 0x80 * (i == len(payloads) - 1)
        rtp = bytes([0x80, mark | 96]) + ((sequence + i) % 2**16).to_bytes(2, "big") + ticks.to_bytes(4, "big")
        packet = rtp + b"\0\0\0\1" + payload
        yield b"$\0" + len(packet).to_bytes(2, "big") + packet


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _bare(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)


async def main(path: Path, pace: float) -> None:
    told = -1

    def tell(number: int, time_s: float) -> None:
        nonlocal told
        if number > told:
            told = number
            sys.stdout.write(f"{number} {time_s}\n")
            sys.stdout.flush()

    async with Camera(path, pace=pace, on_sent=tell) as camera:
        sys.stdout.write(f"{camera.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
