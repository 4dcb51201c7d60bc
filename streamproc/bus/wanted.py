"""`Lease.wanted` as the buses make it: an event that knows since when it has been set."""

from __future__ import annotations

import asyncio


class Wanted(asyncio.Event):
    """Another member should have the lease; until that is so no more."""

    _since_s = 0.0

    def set(self) -> None:
        if not self.is_set():
            self._since_s = asyncio.get_running_loop().time()
        super().set()

    def longer_than(self, seconds: float) -> bool:
        """It has been set for so long without a break."""
        return self.is_set() and asyncio.get_running_loop().time() - self._since_s >= seconds
