"""One file a stage: what it reads and writes, its options, its prompt, how its answers are read, what it concludes.

A stage knows no bus, no retry, no metrics and no other stage; what peers share stands in `options` (how a task speaks to a
stage) and `asking` (how a stage speaks to a model). A new stage is one file here and one line in `pipeline`.
"""
