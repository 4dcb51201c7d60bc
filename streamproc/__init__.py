"""streamproc: video in, what happened in it out, exactly once."""

__version__ = "0.1.0"
