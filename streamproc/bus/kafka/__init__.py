"""The bus on Apache Kafka. How it is put together stands in `bus.py`; how a lease keeps its promise, in `lease.py`."""

from streamproc.bus.kafka.bus import Kafka
from streamproc.bus.kafka.security import KafkaSecurity

__all__ = ["Kafka", "KafkaSecurity"]
