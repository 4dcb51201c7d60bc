"""How fast it is. A module is a bench where it has `run()`, which yields (name, value, goal, ok); goal and ok are None
where nothing is judged.

Ratios are medians over interleaved rounds of one run: whatever else the machine does then slows both sides.
"""
