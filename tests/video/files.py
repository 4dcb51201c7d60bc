"""Small files of every kind, made by ffmpeg: seeded, so the same each time; kept for the session in a folder."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

NOISE = "noise=alls=12:allf=t:all_seed=7"
"""Pictures that differ everywhere: a wrong frame, or a wrong reference, cannot have the right digest."""


@dataclass(frozen=True)
class Kind:
    """How a file is made: the picture, and everything behind it up to the name."""

    name: str
    ending: str
    encode: str
    size: str = "96x64"
    rate: str = "25"
    seconds: float = 5
    filters: str = ""
    before: str = ""
    """A second step: options that cut or remux the file of the first; its result is the file."""
    middle: str = "mkv"

    def make(self, folder: Path) -> Path:
        made = folder / f"{self.name}.{self.ending}"
        if made.exists():
            return made
        picture = f"testsrc2=s={self.size}:r={self.rate}:d={self.seconds},{NOISE}"
        if self.filters:
            picture += f",{self.filters}"
        first = folder / f"{self.name}.first.{self.middle}" if self.before else made
        ffmpeg(f"-f lavfi -i {shlex.quote(picture)} {self.encode} -threads 1", first)
        if self.before:
            ffmpeg(self.before.format(shlex.quote(str(first))), made)
        return made


def ffmpeg(options: str, output: Path | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *shlex.split(options)]
    done = subprocess.run([*command, str(output)] if output else command, capture_output=True, timeout=100, check=False)
    if done.returncode and output:
        output.unlink(missing_ok=True)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr.decode()[-2000:]}"
    return done.stdout


X264 = "-c:v libx264 -preset ultrafast -tune psnr -pix_fmt yuv420p -sc_threshold 0"
SLOW = "-c:v libx264 -preset medium -pix_fmt yuv420p -sc_threshold 0"
X265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p"
X265P = "log-level=error:pools=1:frame-threads=1"

KINDS = (
    Kind("h264", "mp4", f"{SLOW} -g 12"),
    Kind("h264-long", "mp4", f"{SLOW} -g 250 -bf 3"),
    Kind("h264-pyramid", "mkv", f"{SLOW} -g 50 -bf 7 -x264-params b-pyramid=strict:ref=5"),
    Kind("h264-open", "mp4", f"{SLOW} -g 10 -bf 3 -x264-params open-gop=1:ref=4:b-pyramid=normal"),
    Kind("h264-open-odd", "mkv", f"{SLOW} -g 7 -bf 4 -x264-params open-gop=1:ref=8"),
    Kind("h264-refresh", "mp4", f"{SLOW} -g 12 -bf 0 -x264-params intra-refresh=1"),
    Kind("h264-10bit", "mp4", f"{SLOW.replace('yuv420p', 'yuv422p10le')} -g 25"),
    Kind("h264-444", "mkv", f"{SLOW.replace('yuv420p', 'yuv444p')} -g 25"),
    Kind("h264-interlaced", "mp4", f"{SLOW} -g 24 -flags +ilme+ildct -x264-params tff=1", filters="setfield=tff"),
    Kind("h264-interlaced-ts", "ts", f"{SLOW} -g 24 -flags +ilme+ildct -x264-params tff=1", filters="setfield=tff"),
    Kind("h264-slices", "ts", f"{SLOW} -g 15 -x264-params slices=4"),
    Kind("h264-vfr", "mkv", f"{SLOW} -g 12 -fps_mode vfr", filters="select='not(eq(mod(n,3),1)*gt(mod(n,40),20))'"),
    Kind("h264-ntsc", "mp4", f"{SLOW} -g 30", rate="30000/1001"),
    Kind("h264-fragments", "mp4", f"{SLOW} -g 12 -movflags frag_keyframe+empty_moov"),
    Kind("h264-editlist", "mp4", f"{SLOW} -g 25 -bf 3", before="-ss 1.3 -i {} -c copy", middle="mp4"),
    Kind("h264-ts-cut", "ts", f"{SLOW} -g 25", before="-ss 1.3 -noaccurate_seek -i {} -c copy -copyinkf", middle="ts"),
    Kind("h264-late", "ts", f"{SLOW} -g 25 -output_ts_offset 3000"),
    Kind("h264-before-zero", "mp4", f"{SLOW} -g 25 -bf 3 -output_ts_offset -1.2 -avoid_negative_ts disabled"),
    Kind("h264-rotated", "mp4", f"{SLOW} -g 25", before="-i {} -c copy -metadata:s:v rotate=90", middle="mp4"),
    Kind("h264-anamorphic", "mp4", f"{SLOW} -g 25 -aspect 16:9", size="72x56"),
    Kind("h264-avi", "avi", f"{SLOW} -g 25 -bf 2"),
    Kind("h264-flv", "flv", f"{SLOW} -g 25"),
    Kind("h264-mov", "mov", f"{SLOW} -g 25"),
    Kind("h264-raw", "h264", f"{SLOW} -g 25"),
    Kind("hevc", "mp4", f"{X265} -x265-params {X265P}:keyint=25:min-keyint=25:open-gop=0:bframes=4"),
    Kind("hevc-open", "mp4", f"{X265} -x265-params {X265P}:keyint=12:min-keyint=12:open-gop=1:bframes=4:b-adapt=0"),
    Kind("hevc-open-ts", "ts", f"{X265} -x265-params {X265P}:keyint=9:open-gop=1:bframes=4:b-adapt=0:ref=5"),
    Kind("hevc-radl", "mkv", f"{X265} -x265-params {X265P}:keyint=25:open-gop=0:radl=3:bframes=4:b-adapt=0"),
    Kind("hevc-layers", "mp4", f"{X265} -x265-params {X265P}:keyint=25:temporal-layers=3:bframes=3:b-adapt=0"),
    Kind("hevc-refs", "mkv", f"{X265} -x265-params {X265P}:keyint=30:open-gop=1:bframes=6:ref=6:rc-lookahead=15"),
    Kind("hevc-late", "ts", f"{X265} -x265-params {X265P}:keyint=20:open-gop=1:bframes=3 -output_ts_offset 95000"),
    Kind("hevc-10bit", "mkv", f"{X265.replace('yuv420p', 'yuv420p10le')} -x265-params {X265P}:keyint=25"),
    Kind(
        "hevc-cut",
        "ts",
        f"{X265} -x265-params {X265P}:keyint=20:open-gop=1:bframes=4:b-adapt=0",
        before="-ss 1.1 -noaccurate_seek -i {} -c copy -copyinkf",
        middle="ts",
    ),
    Kind("av1", "mp4", "-c:v libaom-av1 -cpu-used 8 -g 25 -usage realtime", seconds=3),
    Kind("av1-alt", "mkv", "-c:v libaom-av1 -cpu-used 8 -g 25 -lag-in-frames 19", seconds=3),
    Kind("av1-svt", "webm", "-c:v libsvtav1 -preset 12 -g 20", seconds=3),
    Kind("vp9", "webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 20"),
    Kind("vp9-alt", "webm", "-c:v libvpx-vp9 -deadline good -cpu-used 5 -g 30 -auto-alt-ref 1 -lag-in-frames 16"),
    Kind("vp8-alt", "webm", "-c:v libvpx -deadline good -cpu-used 5 -g 30 -auto-alt-ref 1 -lag-in-frames 16"),
    Kind("h264-stream", "mkv", f"{SLOW} -g 25 -live 1"),
    Kind("webm-stream", "webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 20 -live 1"),
    Kind("mpeg4", "mp4", "-c:v mpeg4 -g 12 -bf 2"),
    Kind("mpeg4-avi", "avi", "-c:v mpeg4 -g 12 -bf 2"),
    Kind("mpeg4-packed", "avi", "-c:v libxvid -g 12 -bf 2"),
    Kind("mpeg2", "ts", "-c:v mpeg2video -g 12 -bf 2"),
    Kind("mpeg2-ps", "mpg", "-c:v mpeg2video -g 12 -bf 2 -flags +ilme+ildct"),
    Kind("mjpeg", "avi", "-c:v mjpeg -q:v 3"),
    Kind("mjpeg-mov", "mov", "-c:v mjpeg -q:v 3"),
    Kind("prores", "mov", "-c:v prores_ks"),
    Kind("ffv1", "mkv", "-c:v ffv1 -g 10"),
    Kind("gif", "gif", "", seconds=2),
)
