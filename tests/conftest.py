"""For all tests: an S3 server for those who ask for one, and how hard hypothesis looks. A CI run repeats itself; at a desk
every run looks elsewhere; `long` digs."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.s3 import aws as aws
from tests.s3 import bucket as bucket
from tests.s3 import s3 as s3

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("desk", deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("ci", deadline=None, suppress_health_check=SLOW_IS_FINE, derandomize=True, print_blob=True)
settings.register_profile("long", deadline=None, suppress_health_check=SLOW_IS_FINE, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "desk"))
