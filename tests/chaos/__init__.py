"""Workers killed, stopped, drained and joined at random over a real bus, while an endpoint counts what it is asked.

    .venv/bin/python -m tests.chaos --bus embedded --inputs 100000 --kills 100 --seed 1 --json

`worker` is one process of two services; `endpoint` counts calls; `weather` does the harm; `check` reads the topics from
their beginning and says what is true. Deliberately small stages: what is tried is the engine and the bus.

`--pipeline` tries what stands on them instead: every stage that people run, from decode to verdict, each as processes of
`streamproc up`. There `pipeline_truth` says beforehand what every outcome must be, `pipeline_endpoint` answers by it,
`pipeline_weather` does the harm, `pipeline_heard` knows how far everybody is, `pipeline_evidence` reads the topics, and
`pipeline_check` says whether they say what is true.
"""
