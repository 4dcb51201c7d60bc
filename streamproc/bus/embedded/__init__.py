"""The embedded bus: one machine, no server. `Embedded` is all there is to see."""

from streamproc.bus.embedded.bus import Embedded

__all__ = ["Embedded"]
