"""Answers of models with what they say, written for these tests: `answers` by stated rule, `odd.jsonl` one by one."""
