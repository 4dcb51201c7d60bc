"""Pictures out of files and feeds: the right ones, cheaply. No bus, no stage, no runner; messages are all it knows."""
