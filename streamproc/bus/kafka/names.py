"""What things are called on the broker: the prefix of a deployment before each, so that many can share one cluster."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.bus.kafka.insides import TopicPartition
from streamproc.topics import state_topic


@dataclass(frozen=True, slots=True)
class Names:
    prefix: str

    def topic(self, name: str) -> str:
        return self.prefix + name

    def at(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(self.prefix + topic, partition)

    def state(self, service: str, partition: int) -> TopicPartition:
        return self.at(state_topic(service).name, partition)

    def group(self, service: str) -> str:
        return self.prefix + service

    def transactional_id(self, service: str, partition: int) -> str:
        return f"{self.prefix}{service}.{partition}"

    def ours(self, topic: str) -> str | None:
        """A topic's name in our words; None if it is of another deployment, or Kafka's own."""
        return topic.removeprefix(self.prefix) if topic.startswith(self.prefix) and not topic.startswith("__") else None
