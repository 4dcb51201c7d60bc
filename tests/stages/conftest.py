"""Files for stages that see pictures."""

from tests.video.conftest import folder

__all__ = ["folder"]
