"""Claim checks, over a folder and over a real S3 server: what comes back is what was checked in, or an error says why."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from pathlib import Path

import obstore.exceptions
import pytest
from msgspec.structs import replace

from streamproc.bus.claims import Bucket, Claims, Folder, Store, open_store
from streamproc.errors import Misconfigured, Rejected, TooLarge, Unparseable, Unreachable
from streamproc.objectstore import Opening
from streamproc.topics import topic
from streamproc.wire import Entry, Stored, decode
from tests.topics import golden

WINDOW = next(g for g in golden.everything() if g.name == "windows.done.msgpack")
SMALL = WINDOW.entry()
assert SMALL.value
PAYLOAD = SMALL.value


class Clock:
    """Time as the test says; stores take a payload's age from it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Folder(tmp_path / "claims")
    return Bucket(f"s3://{request.getfixturevalue('bucket')}/claims")


def stored(entry: Entry) -> Stored:
    return Stored(entry.topic, entry.partition, entry.key, entry.value, entry.headers, offset=0, time_ms=0)


async def test_what_is_checked_out_is_what_was_checked_in(store: Store) -> None:
    claims = Claims(store)
    claim = await claims.check_in(SMALL, 1000)
    assert claim.size < 400 < 1000 < SMALL.size
    assert claim.value is not None
    told = json.loads(claim.value)
    assert told == {
        "claim": f"{store.uri}/{told['sha256'][:2]}/{told['sha256']}",
        "sha256": hashlib.sha256(PAYLOAD).hexdigest(),
        "bytes": len(PAYLOAD),
    }
    assert claim.header("claim") == told["claim"].encode()
    assert claim.header("claim-sha256") == told["sha256"].encode()
    assert claim.header("claim-bytes") == str(len(PAYLOAD)).encode()
    back = await Claims(store).check_out(stored(claim))
    assert back == stored(SMALL)
    assert decode(topic("windows"), back) == WINDOW.record


async def test_what_its_topic_allows_travels_as_it_is(store: Store) -> None:
    assert await Claims(store).check_in(SMALL, SMALL.size) is SMALL
    deletion = replace(SMALL, value=None)
    assert await Claims(store).check_in(deletion, 0) is deletion
    record = stored(SMALL)
    assert await Claims(store).check_out(record) is record


async def test_a_threshold_checks_in_earlier_and_never_allows_more(store: Store) -> None:
    assert (await Claims(store, threshold_bytes=10).check_in(SMALL, 10_000)).header("claim")
    assert (await Claims(store, threshold_bytes=10_000).check_in(SMALL, 1000)).header("claim")


async def test_a_row_of_a_table_travels_as_it_is_for_who_follows_it_knows_of_no_store(store: Store) -> None:
    row = next(g for g in golden.everything() if g.name.startswith("sources.")).entry()
    assert row.size > 10
    assert await Claims(store, threshold_bytes=10).check_in(row, 10_000) is row


async def test_putting_twice_is_harmless(store: Store) -> None:
    first = await Claims(store).check_in(SMALL, 1000)
    assert await Claims(store).check_in(SMALL, 1000) == first
    assert await Claims(store).check_out(stored(first)) == stored(SMALL)


async def test_many_writers_of_the_same_payload_do_not_meet(store: Store) -> None:
    many = await asyncio.gather(*(Claims(store).check_in(SMALL, 1000) for _ in range(16)))
    assert all(claim == many[0] for claim in many)
    assert await Claims(store).check_out(stored(many[0])) == stored(SMALL)


async def test_a_payload_that_is_gone_is_rejected_with_its_uri(store: Store) -> None:
    claim = await Claims(store).check_in(SMALL, 1000)
    elsewhere = open_store(store.uri + "-2")
    await elsewhere.put("aa/x", b"x")
    with pytest.raises(Rejected) as caught:
        await Claims(elsewhere).check_out(stored(claim))
    assert (claim.header("claim") or b"").decode() in str(caught.value)


async def test_a_payload_that_was_changed_in_the_store_is_rejected(store: Store) -> None:
    claims = Claims(store)
    claim = await claims.check_in(SMALL, 1000)
    digest = (claim.header("claim-sha256") or b"").decode()
    await store.put(f"{digest[:2]}/{digest}", PAYLOAD[:-1])
    with pytest.raises(Rejected, match="is not what was checked in"):
        await claims.check_out(stored(claim))


async def test_without_a_store_what_is_too_large_is_rejected_and_a_claim_waits_for_one(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match=r"windows: larger than the 1000 bytes.*claims\.store"):
        await Claims(None).check_in(SMALL, 1000)
    assert await Claims(None, threshold_bytes=1000).check_in(SMALL, 10_000) is SMALL
    claim = await Claims(Folder(tmp_path)).check_in(SMALL, 1000)
    with pytest.raises(Unreachable, match=r"Set claims\.store as the writer did"):
        await Claims(None).check_out(stored(claim))
    assert await Claims(None).sweep(0) == 0


@pytest.mark.parametrize("digest", [None, b"", b"ab", b"../../etc/passwd", b"A" * 64, b"\xff" * 64])
async def test_a_claim_without_a_proper_digest_cannot_be_parsed(digest: bytes | None, tmp_path: Path) -> None:
    headers = (("claim", b"file:///etc/passwd"), *([("claim-sha256", digest)] if digest is not None else []))
    with pytest.raises(Unparseable, match="without a digest"):
        await Claims(Folder(tmp_path)).check_out(stored(replace(SMALL, headers=headers)))


async def test_a_claim_is_found_by_its_digest_wherever_the_store_has_moved(tmp_path: Path) -> None:
    claim = await Claims(Folder(tmp_path / "before")).check_in(SMALL, 1000)
    (tmp_path / "before").rename(tmp_path / "after")
    assert await Claims(Folder(tmp_path / "after")).check_out(stored(claim)) == stored(SMALL)


# a folder -----------------------------------------------------------------------------------------------------------


OLD, YOUNG = "aa" + 62 * "0", "aa" + 62 * "1"


async def test_a_folder_is_swept_by_age_and_of_what_dead_writers_left(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(tmp_path, now=clock)
    await folder.put(f"aa/{OLD}", b"x")
    half = tmp_path / "aa" / f".{OLD}.17.0123abcd"
    half.write_bytes(b"x")
    os.utime(half, (clock.now, clock.now))
    clock.now += 100
    await folder.put(f"aa/{YOUNG}", b"x")
    assert await folder.sweep(50) == 1
    assert [p.name for p in (tmp_path / "aa").iterdir()] == [YOUNG]


async def test_what_somebody_else_keeps_in_the_folder_is_never_swept(tmp_path: Path) -> None:
    folder = Folder(tmp_path, now=Clock())
    theirs = others(tmp_path)
    await folder.put(f"aa/{YOUNG}", b"x")
    assert await folder.sweep(-1) == 1
    assert there(theirs)


def there(files: list[Path]) -> bool:
    return all(file.exists() for file in files)


def others(folder: Path) -> list[Path]:
    """Files as old as can be; one lies where a folder of ours might."""
    made = [folder / name for name in ("go/src", "aa/notes", f"aa/{OLD}.jpeg", "aa/deeper/x", f"zz/{OLD}", "bb")]
    for file in made:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (0, 0))
    return made


async def test_a_bucket_is_left_to_the_rules_it_has(bucket: str) -> None:
    claims = Claims(open_store(f"s3://{bucket}/claims"))
    claim = await claims.check_in(SMALL, 1000)
    assert not claims.grows
    assert await claims.sweep(-60) == 0
    assert await claims.check_out(stored(claim)) == stored(SMALL)


async def test_a_payload_put_while_its_old_self_is_swept_stays(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(tmp_path, now=clock)
    stop = threading.Event()

    def sweep_on_and_on() -> None:
        while not stop.is_set():
            asyncio.run(folder.sweep(50))

    sweeper = threading.Thread(target=sweep_on_and_on)
    sweeper.start()
    try:
        for _ in range(100):
            clock.now += 100  # what lies there is old by now
            await folder.put(f"aa/{OLD}", b"x")
            assert await folder.get(f"aa/{OLD}") == b"x"
    finally:
        stop.set()
        sweeper.join()


async def test_a_folder_that_cannot_be_written_is_unreachable_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unreachable, match=r"claim store file://.*See that the folder is there"):
        await Folder(tmp_path / "file").put("aa/x", b"x")


async def test_a_folder_that_is_not_mounted_is_no_missing_payload(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        await Folder(tmp_path / "nowhere").get("aa/x")
    assert await Folder(tmp_path).get("aa/x") is None


def test_a_store_is_a_folder_or_a_bucket(tmp_path: Path) -> None:
    assert open_store(str(tmp_path)).uri == tmp_path.as_uri()
    assert open_store(tmp_path.as_uri()).uri == tmp_path.as_uri()
    assert open_store("s3://bucket/a/").uri == "s3://bucket/a"
    with pytest.raises(Misconfigured, match="neither a folder nor s3://"):
        open_store("ftp://host/x")


# an object store ----------------------------------------------------------------------------------------------------


async def test_a_bucket_that_is_not_there_is_unreachable_for_reading_and_writing(aws: str) -> None:
    for asked in (Bucket("s3://no-such-bucket").get("aa/x"), Bucket("s3://no-such-bucket").put("aa/x", b"x")):
        with pytest.raises(Unreachable, match=r"claim store s3://no-such-bucket: .*AWS_ENDPOINT_URL"):
            await asked


async def test_a_server_that_does_not_answer_is_unreachable(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable):
        await Bucket("s3://bucket").put("aa/x", b"x")


def test_every_error_of_the_library_is_mapped() -> None:
    """All are below BaseError, which `Opening` maps; those that no retry can mend are settings."""
    found = {n: c for n, c in vars(obstore.exceptions).items() if isinstance(c, type) and issubclass(c, Exception)}
    bucket = Opening("s3://bucket", what="claim store", within_s=1)
    for name, error in found.items():
        settings = name in ("InvalidPathError", "UnknownConfigurationKeyError")
        with pytest.raises(Misconfigured if settings else Unreachable) as caught, bucket.mapped():
            raise error("broken\n\nDebug source: …")
        assert "Debug" not in str(caught.value)
