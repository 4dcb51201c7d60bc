"""How it is put together: which stages a task switches on, as which services, and a process that works in some of them.

    parts      one line a stage: its services, and how it is built       means     models, workers and footage of a process
    streams    the table of sources: what runs, under which task         process   services at work in one process
    progress   what every service has accounted for                      tail      results as they land
    job        one run over some streams                                 outputs   results as files
    trace      what became of one moment, and who lost it                letters   what failed for good, done again
    checkup    every hop looked at, with what to do

It sees every room but the command line and settings; nothing of what stages do, or of how the runner does it, is here.
"""
