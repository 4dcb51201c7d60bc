"""How good results are: pure functions over arrays. No bus, no files; the command line reads the formats and prints."""
