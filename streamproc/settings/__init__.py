"""Settings of a process: where the bus is, what it may hold in flight, which endpoints there are. No task, no prompt.

Options > environment > `streamproc.toml` > defaults. Every setting is `STREAMPROC_NAME`, a nested one
`STREAMPROC_GROUP__NAME`; the names that people of Kafka, OpenAI and Hugging Face have already are read too. Nothing is
read before `load` is called.

    options    what can be set      sources    where it comes from      opening    the bus and the store that it names
"""

from streamproc.bus.contract import PARTITIONS
from streamproc.settings.opening import EmbeddedAt, KafkaAt, open_bus, open_claims, parse_bus
from streamproc.settings.options import Endpoint, Settings
from streamproc.settings.sources import load, names, variable

__all__ = [
    "PARTITIONS",
    "EmbeddedAt",
    "Endpoint",
    "KafkaAt",
    "Settings",
    "load",
    "names",
    "open_bus",
    "open_claims",
    "parse_bus",
    "variable",
]
