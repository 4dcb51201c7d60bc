"""The real runner over a bus in memory, in virtual time, in bad weather; then the promises are checked.

.venv/bin/python -m tests.sim 0 1000 --kills 10
"""
