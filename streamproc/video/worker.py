"""The process that decodes. It reads jobs from its standard input and answers on its standard output; it knows no more.

A decoder may crash or hang on hostile bytes: it takes this process with it and nothing else. Whatever is not an error
of ours ends the process too, with its traceback, and whoever asked sees one attempt fail.
"""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from streamproc.errors import StreamprocError

if TYPE_CHECKING:
    from streamproc.video.jobs import Job

HEAD = 8
"""Bytes before each message: its length."""
HOLD_S = 5.0
"""So long a file stays open for the next job."""
BEAT_S = 1.0
"""While packets are read, something is said so often: a long file is no hang."""


def main() -> None:
    from streamproc.video.container import PULSE
    from streamproc.video.slicing import HELD  # with what jobs need, before the first one comes

    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak in between
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks; we end when our input does
    memory = int(sys.argv[1])
    with suppress(ValueError, OSError):  # a limit that is already lower stays
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    voice = Voice(answers)
    PULSE.set(voice.beat)
    while True:
        if not select.select([jobs], [], [], HOLD_S)[0]:
            HELD.close()  # else a file that somebody deletes would go on taking its room
        if not (head := jobs.read(HEAD)):
            return
        job: Job = pickle.loads(jobs.read(int.from_bytes(head, "big")))
        try:
            for part in job.run():
                voice.say("part", part)
        except StreamprocError as e:
            voice.say("error", (type(e).__name__, str(e), vars(e)))
        else:
            voice.say("end", None)


class Voice:
    """What whoever asked hears of us."""

    def __init__(self, answers: BinaryIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._answers, self._clock, self._said = answers, clock, clock()

    def say(self, kind: str, what: object) -> None:
        data = pickle.dumps((kind, what), protocol=pickle.HIGHEST_PROTOCOL)
        self._answers.write(len(data).to_bytes(HEAD, "big"))
        self._answers.write(data)
        self._answers.flush()
        self._said = self._clock()

    def beat(self) -> None:
        if self._clock() - self._said > BEAT_S:
            self.say("beat", None)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # whoever asked is gone, and nobody is left to be told
        os._exit(0)
