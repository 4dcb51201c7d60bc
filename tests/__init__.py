"""Tests, benches and chaos. All of them start processes of streamproc, which need not compile it anew each time."""

import os

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
