"""The rule `cluster` over files: a model is asked for each clip, many at once, and what it answered is kept as it comes."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec
from msgspec import Struct

from streamproc.cli.endpoints import environ, served_as, with_stand_ins
from streamproc.cli.frame import say
from streamproc.errors import Misconfigured, Rejected, Retryable, Unreachable
from streamproc.stages.ensemble.cluster import DECIDES, TEXTS, Asked, Decision, clustered, prompt_of, sentences
from streamproc.stages.ensemble.rows import Row, most_frequent, names
from streamproc.stages.ensemble.stage import Options

if TYPE_CHECKING:
    from streamproc.models.call import Answer, Call
    from streamproc.models.card import Served
    from streamproc.models.pool import Pool
    from streamproc.settings import Settings

AT_ONCE = 64
"""Clips under way; the pool brings them to the model at its own pace."""
PATIENCE_S = 600.0
"""How long an outage is waited out. What has been answered is kept in any case."""


TELL_EVERY_S = 15.0


class Kept(Struct, frozen=True):
    """A line of the file of answers."""

    video: str
    question: str
    """Hash of what was asked of whom: other inputs, another prompt or model are another question."""
    decision: Decision
    raw: str


@dataclass
class Clustering:
    """One call of the command."""

    model: Served
    models: Sequence[Served]
    """It, and who stands in for it."""
    environ: Mapping[str, str]
    answers: Path
    asked: Asked
    decisions: dict[str, Decision] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Settings, model: str | None, out: Path) -> Self:
        from streamproc.models.card import served
        from streamproc.task import OBSERVER

        if model is None:
            say("No --model: the built-in observer joins the descriptions. It is no AI, and takes the first line.")
        name = model or OBSERVER
        one = served(name) if "@" in name else served_as(told, name)
        answers = out.with_name(f"{out.name}.answers.jsonl")
        return cls(
            one, with_stand_ins(told, [one]), environ(told), answers, Options(rule="cluster", model=one.name).asked()
        )

    async def all(self, by_clip: Mapping[str, Sequence[Row]]) -> None:
        """A decision on every clip that has one, those of earlier calls among them."""
        several = {video: rows for video, rows in by_clip.items() if len(rows) > 1}
        questions = {video: self._question(rows) for video, rows in several.items()}
        with _kept(self.answers) as (earlier, file):
            self.decisions = {k.video: k.decision for k in earlier if questions.get(k.video) == k.question}
            before = len(self.decisions)
            missing = [video for video in several if video not in self.decisions]
            if missing:
                async with AsyncExitStack() as stack:
                    pool = await self._pool(stack)
                    waiting = iter(missing)
                    teller = asyncio.create_task(self._tell(pool, len(several)))
                    stack.callback(teller.cancel)
                    async with asyncio.TaskGroup() as tasks:
                        for _ in range(min(AT_ONCE, len(missing))):
                            tasks.create_task(self._work(pool, waiting, several, questions, file))
        decided = len(self.decisions)
        self.summary = {"kept": before, "answered": decided - before, "undecided": len(several) - decided}

    async def _pool(self, stack: AsyncExitStack) -> Pool:
        """The model, there and answering; else Unreachable before anything is asked."""
        from streamproc.models.observer import running
        from streamproc.models.opening import model_of
        from streamproc.models.pool import Pool
        from streamproc.models.transport import AiohttpTransport
        from streamproc.pipeline.means import reach

        models = list(self.models)
        if not all(one.urls for one in models):
            url, _ = await stack.enter_async_context(running())
            models = [one if one.urls else replace(one, urls=(url,)) for one in models]
        for warning in await reach(models, environ=self.environ):
            say(warning)
        transport = await stack.enter_async_context(AiohttpTransport())
        pool = Pool([model_of(one, environ=self.environ, transport=transport) for one in models])
        stack.callback(pool.close)
        return pool

    async def _tell(self, pool: Pool, clips: int) -> None:
        """How far it is, and why it does not get on, for as long as it takes."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            out = next((r.why for one in pool.status() for r in one.replicas if r.why), None)
            why = f"; {self.model.name} is out: {out}" if out else ""
            say(f"{len(self.decisions)} of {clips} clips have an answer{why}")

    async def _work(
        self,
        pool: Pool,
        waiting: Iterator[str],
        several: Mapping[str, Sequence[Row]],
        questions: Mapping[str, str],
        file: BinaryIO,
    ) -> None:
        for video in waiting:

            async def ask(call: Call, stream: str = video) -> Answer:
                return await pool.ask(self.model.name, call, stream=stream, live=False, patience_s=PATIENCE_S)

            try:
                decision, answers = await clustered(several[video], self.asked, ask)
            except Unreachable:
                raise
            except (Rejected, Retryable) as e:
                say(f"clip {video}: {e}")
                continue
            if decision.fields:
                self.decisions[video] = decision
                raw = answers[-1].reply.samples[0].text
                _keep(file, Kept(video, questions[video], decision, raw.encode(errors="replace").decode()))

    def _question(self, rows: Sequence[Row]) -> str:
        digest = prompt_of(rows, self.asked).digest
        told = msgspec.json.encode([digest, self.model.card.name, self.model.model, self.asked])
        return hashlib.blake2b(told, digest_size=16).hexdigest()

    def row(self, video: str, rows: Sequence[Row], *, base: Row) -> Row:
        """What was decided; the rest as the base has it, else the most frequent. Undecided, a clip has the base's cells, or
        the most frequent frame and the sentences that are most like the others'."""
        decision = self.decisions.get(video)
        rest = dict(base) or most_frequent(rows, [name for name in names(rows) if name not in TEXTS])
        if decision is None and not base:
            return rest | sentences(rows, self.asked.words)
        return rest | ({name: decision.fields[name] for name in DECIDES} if decision else {})


# the file of answers ------------------------------------------------------------------------------------------------


@contextmanager
def _kept(path: Path) -> Iterator[tuple[list[Kept], BinaryIO]]:
    """What earlier calls have kept, and the file to go on with; one call at a time."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(f"'{path}' is in use: another call makes the same output") from None
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        file.truncate(whole)  # a line that a kill cut short is no answer
        yield list(_lines(data[:whole], path)), file


def _lines(data: bytes, path: Path) -> Iterator[Kept]:
    decoder = msgspec.json.Decoder(Kept)
    for number, line in enumerate(data.splitlines(), 1):
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError as e:
            raise Rejected(f"{path} line {number} is no answer of ours: {e}. Remove the line, or the file") from e


def _keep(file: BinaryIO, kept: Kept) -> None:
    file.write(msgspec.json.encode(kept) + b"\n")
    file.flush()
    os.fsync(file.fileno())
