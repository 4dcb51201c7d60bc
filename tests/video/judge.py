"""The judge: every frame that ffmpeg shows of a file, decoded from beginning to end, with timestamp and digest."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from streamproc.video.choice import Rule, choose
from tests.video.files import ffmpeg


@dataclass(frozen=True)
class Shown:
    time_base: Fraction
    frames: list[tuple[int, str]]
    """(pts, MD5), in shown order."""

    def chosen(self, rule: Rule) -> list[tuple[int, int, str]]:
        """(number, pts, MD5) of what a rule chooses."""
        chosen = choose((pts for pts, _ in self.frames), self.time_base, rule)
        return [(c.number, c.pts, self.frames[c.number - 1][1]) for c in chosen]


def judge(path: Path) -> Shown:
    told = ffmpeg(
        f"-noautorotate -copyts -i {shlex.quote(str(path))} -map 0:v:0 "
        "-fps_mode passthrough -enc_time_base -1 -f framemd5 -"
    ).decode()
    time_base, frames = Fraction(0), []
    for line in told.splitlines():
        if line.startswith("#tb 0:"):
            time_base = Fraction(line.split(":")[1].strip())
        elif line and not line.startswith("#"):
            fields = line.split(",")
            frames.append((int(fields[2]), fields[5].strip()))
    return Shown(time_base, frames)
