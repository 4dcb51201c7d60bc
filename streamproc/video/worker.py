"""The process that decodes. It reads jobs from its standard input and answers on its standard output; it knows no more.

A decoder may crash or hang on hostile bytes: it takes this process with it and nothing else. Whatever is not an error
of ours ends the process too, with its traceback, and whoever asked sees one attempt fail.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from streamproc.errors import StreamprocError
from streamproc.video.jobs import Job

HEAD = 8
"""Bytes before each message: its length."""


def main() -> None:
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak in between
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks; we end when our input does
    memory = int(sys.argv[1])
    with suppress(ValueError, OSError):  # a limit that is already lower stays
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    while head := jobs.read(HEAD):
        job: Job = pickle.loads(jobs.read(int.from_bytes(head, "big")))
        try:
            for part in job.run():
                _say(answers, ("part", part))
        except StreamprocError as e:
            _say(answers, ("error", (type(e).__name__, str(e))))
        else:
            _say(answers, ("end", None))


def _say(answers: BinaryIO, message: tuple[str, object]) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    answers.write(len(data).to_bytes(HEAD, "big"))
    answers.write(data)
    answers.flush()


if __name__ == "__main__":
    main()
