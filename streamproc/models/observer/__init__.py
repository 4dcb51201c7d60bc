"""A server without AI behind the same HTTP API as every model: it measures what is in the JPEGs, and says that it did.

So a laptop runs everything, and tests run on the real path of HTTP. It is no model: `answers` says which words of a label
it can find in pictures.
"""

from streamproc.models.observer.app import create_app, running
from streamproc.models.observer.chat import ABILITIES, Observer, Settings

__all__ = ["ABILITIES", "Observer", "Settings", "create_app", "running"]
