"""Why there is no result, in the words of more than one stage. They stand in topics, and people ask for them by name."""

from __future__ import annotations

from typing import Final

NO_PICTURES: Final = "no-pictures"
NOT_CLOSED: Final = "not-closed"
"""An event goes on: only when it has closed is it described and judged."""
UNREADABLE: Final = "unreadable"
"""Nothing that the model said can be read."""
