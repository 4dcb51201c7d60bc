"""Every endpoint spoken to in its own way, kept busy, and understood. Knows no bus, no runner and no stage."""
