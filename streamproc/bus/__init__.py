"""Buses: where records lie, and how they land. One contract, two of them: embedded (SQLite) and Kafka."""
