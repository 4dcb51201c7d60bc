"""Wake-ups between processes: a datagram socket for each that listens, one byte to each after a landing.

Only a hint: what is lost, the poll finds half a second later. What changed, the listener reads for itself.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

DRAIN_BYTES = 64
SETTLED_NS = 50_000_000
BINDINGS = 100
"""So often in turn nobody leaves a folder in the moment in which another comes."""

log = logging.getLogger(__name__)


class Wake:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._mine = f"{secrets.token_hex(8)}.sock"
        self._folder: Path | None = None
        self._others: list[str] = []
        self._listed_ns = -1

    def bind(self, folder: Path) -> None:
        for left in reversed(range(BINDINGS)):
            try:
                folder.mkdir(mode=0o777, exist_ok=True)
                self._socket.bind(str(folder / self._mine))
                break
            except (FileNotFoundError, FileExistsError):  # the last to leave has taken it away in between
                if not left:
                    raise
        self._folder = folder

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget the bytes that came: they all say the same."""
        with suppress(BlockingIOError):
            for _ in range(DRAIN_BYTES):
                self._socket.recv(1)

    def others(self) -> None:
        """Wake everybody else. Called on the writing thread, which no failure to do so may harm."""
        if self._folder is None:
            return
        try:
            self._send(self._folder)
        except OSError as e:
            log.debug("nobody is woken: %s; they look by themselves twice a second", e)

    def _send(self, folder: Path) -> None:
        changed_ns = os.stat(folder).st_mtime_ns
        if changed_ns != self._listed_ns:
            self._others = [n for n in os.listdir(folder) if n.endswith(".sock") and n != self._mine]
            # times of folders are coarse: one that has just changed may change again without showing it
            self._listed_ns = changed_ns if time.time_ns() - changed_ns > SETTLED_NS else -1
        for name in self._others:
            try:
                self._socket.sendto(b"\0", str(folder / name))
            except FileNotFoundError:
                self._listed_ns = -1
            except ConnectionRefusedError:  # killed: nobody has it open, and nobody else clears up after it
                with suppress(FileNotFoundError):
                    os.unlink(folder / name)
                self._listed_ns = -1
            except OSError:  # its buffer is full: enough bytes wait there, it will look anyway
                continue

    def close(self) -> None:
        self._socket.close()
        if self._folder is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._folder / self._mine)
            with suppress(OSError):  # others are there
                self._folder.rmdir()
