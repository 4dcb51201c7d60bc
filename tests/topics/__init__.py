"""What is generated from `streamproc/messages.py` and `topics/*.toml`: schemas, asyncapi.yaml, golden messages."""
