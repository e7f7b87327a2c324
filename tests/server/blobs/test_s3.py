"""What the store in a bucket promises beyond the interface: refusals, broken lines, versions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from agentsight.server.blobs import (
    ObjectExists,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
    StrangerStore,
    blob_key,
)
from agentsight.server.blobs.opening import open_blob_store
from agentsight.server.blobs.s3 import S3BlobStore
from agentsight.server.ids import AgentId, new_uid
from tests.server.blobs.stores import INSTANCE, s3_store
from tests.support.meddler import Meddler, meddling_with
from tests.support.seaweed import ACCESS_KEY, BUCKET, READER_KEY, SECRET_KEY, Seaweed

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

MIB = 1024 * 1024


@pytest.fixture
async def store(seaweed: Seaweed, tmp_path: Path) -> AsyncIterator[S3BlobStore]:
    """Give a store in a folder of its own."""
    made = s3_store(seaweed, spool_dir=tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def meddler(seaweed: Seaweed) -> AsyncIterator[Meddler]:
    """Give a proxy to the store that may misbehave."""
    async with meddling_with(seaweed.endpoint) as made:
        yield made


def new_key() -> str:
    """Make a key that nobody has."""
    return blob_key(AgentId(3), new_uid(1_700_000_000_000_000))


async def put(store: S3BlobStore, data: bytes, key: str | None = None) -> str:
    """Store bytes and return their key."""
    key = key or new_key()
    async with await store.create(key) as writer:
        for start in range(0, len(data), 300_000):
            await writer.write(data[start : start + 300_000])
        await writer.finish()
    return key


async def raw_client(seaweed: Seaweed) -> Any:
    """Make a client as anybody else would, for looking behind the store's back."""
    from aiobotocore.session import AioSession

    session: Any = AioSession()
    return session.create_client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


async def failure_of(store: S3BlobStore) -> list[str]:
    """Ask a store that does not work for everything, and return what it says each time."""
    asks = (
        store.check,
        store.read_marker,
        lambda: put(store, b"x"),
        lambda: put(store, b"x" * 9 * MIB),
        lambda: store.size("a/b"),
        lambda: store.read("a/b"),
        lambda: store.delete("a/b"),
        lambda: store.sweep(older_than_s=1),
        lambda: store.resume_parts("a/b", '["x","gone"]'),
    )
    said = await asyncio.gather(*(ask() for ask in asks), return_exceptions=True)
    await store.close()
    assert all(isinstance(answer, StorageUnavailable) for answer in said), said
    return [cast("StorageUnavailable", answer).detail for answer in said]


# --- What can be wrong with a store ---------------------------------------------------------------


async def test_a_store_that_is_not_there_is_told_apart_from_one_without_files() -> None:
    """Every question ends in one error that says what to do, none in "there is no such object"."""
    gone = Seaweed(Path())
    for said in await failure_of(s3_store(gone)):
        assert said == "The object store cannot be reached: start it, or mend AWS_ENDPOINT_URL."


async def test_a_bucket_that_is_not_there_is_told_apart_from_one_without_files(
    seaweed: Seaweed,
) -> None:
    """A bucket's absence never looks like lost files, for a HEAD neither."""
    # SeaweedFS makes buckets for whoever may administrate; the reader may not.
    store = s3_store(seaweed, url="s3://no-such-bucket", AWS_ACCESS_KEY_ID=READER_KEY)
    for said in await failure_of(store):
        assert "no such bucket" in said or "denies access" in said


async def test_a_wrong_secret_names_the_variables(seaweed: Seaweed) -> None:
    """Whoever mistyped the key is told which variables hold it, and never what is in them."""
    for said in await failure_of(s3_store(seaweed, AWS_SECRET_ACCESS_KEY="wrong-and-hush")):
        assert "AWS_SECRET_ACCESS_KEY" in said or "denies access" in said
        assert "hush" not in said


async def test_a_key_that_may_only_read_cannot_pass_the_check(seaweed: Seaweed) -> None:
    """Reading works with it; what would fail at the first upload fails at the check."""
    url = seaweed.new_url()
    owner, reader = (
        s3_store(seaweed, url=url),
        s3_store(seaweed, url=url, AWS_ACCESS_KEY_ID=READER_KEY),
    )
    key = await put(owner, b"seen")
    assert await reader.read_whole(key, max_bytes=10) == b"seen"
    with pytest.raises(StorageUnavailable, match="denies access"):
        await reader.check()
    await owner.close()
    await reader.close()


async def test_without_credentials_the_store_is_not_asked(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variables to set."""
    for name, value in seaweed.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_blob_store(seaweed.new_url())
    with pytest.raises(StorageUnavailable, match="set AWS_ACCESS_KEY_ID"):
        await store.check()
    await store.close()


async def test_an_address_that_is_none_is_said_so(seaweed: Seaweed) -> None:
    """A slip in the endpoint is an error of the store, not a crash."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL="localhost:8333")
    with pytest.raises(StorageUnavailable, match="AWS_ENDPOINT_URL"):
        await store.check()
    await store.close()


async def test_a_store_that_hangs_is_given_up(own_seaweed: Seaweed) -> None:
    """A store that takes a connection and says nothing costs a bounded time, and may come back."""
    store = s3_store(own_seaweed, read_timeout_s=0.2)
    key = await put(store, b"before")
    with own_seaweed.frozen(), pytest.raises(StorageUnavailable, match="in time"):
        await store.size(key)
    assert await store.read_whole(key, max_bytes=10) == b"before"
    await store.close()


async def test_the_store_may_go_away_and_come_back(own_seaweed: Seaweed, tmp_path: Path) -> None:
    """An object under way when the store dies is refused and not visible; then all works again."""
    store = s3_store(own_seaweed, spool_dir=tmp_path)
    kept, lost, late = await put(store, b"kept" * 1000), new_key(), new_key()
    state = ""
    async with await store.resume_parts(late, state) as parts:
        await parts.write(b"a" * 9 * MIB)
        await parts.pause()
        state = parts.state
    own_seaweed.kill()
    with pytest.raises(StorageUnavailable):
        await put(store, os.urandom(20 * MIB), lost)
    with pytest.raises(StorageUnavailable):
        await store.resume_parts(late, state)
    own_seaweed.start()
    assert await store.size(lost) is None
    assert await store.read_whole(kept, max_bytes=4000) == b"kept" * 1000
    async with await store.resume_parts(late, state) as parts:
        assert parts.offset == 9 * MIB
        await parts.write(b"b" * 9 * MIB)
        await parts.finish()
    assert await store.read_whole(late, max_bytes=18 * MIB) == b"a" * 9 * MIB + b"b" * 9 * MIB
    await put(store, os.urandom(20 * MIB), lost)
    await store.close()


async def test_finish_may_be_tried_again_when_the_store_is_back(
    own_seaweed: Seaweed, tmp_path: Path
) -> None:
    """The bytes wait on our disk: nothing is asked of the sender anew."""
    store, key, data = s3_store(own_seaweed, spool_dir=tmp_path), new_key(), os.urandom(10 * MIB)
    async with await store.resume_parts(key, "") as parts:
        await parts.write(data)
        await parts.pause()
        own_seaweed.kill()
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await parts.finish()
        own_seaweed.start()
        await parts.finish()
    assert await store.read_whole(key, max_bytes=len(data)) == data
    await store.close()


async def test_a_bucket_of_another_instance_is_refused(store: S3BlobStore) -> None:
    """Two instances never share a folder; the remedy names the setting."""
    assert await store.read_marker() is None
    await store.write_marker(INSTANCE)
    with pytest.raises(StrangerStore, match="AGENTSIGHT_STORAGE_URL"):
        await store.write_marker(INSTANCE.replace("1", "2"))


# --- Broken lines ---------------------------------------------------------------------------------


async def test_a_broken_read_goes_on_where_it_broke(seaweed: Seaweed, meddler: Meddler) -> None:
    """Stores hang up on slow readers; the reader of our stream does not notice."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    data = os.urandom(3 * MIB)
    key = await put(store, data)
    meddler.cut_after, meddler.n_cuts = MIB, 2
    async with await store.read(key, 5) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == data[5:]
    assert meddler.n_cuts == 0
    await store.close()


async def test_a_read_that_always_breaks_ends_in_an_error(
    seaweed: Seaweed, meddler: Meddler
) -> None:
    """Where no byte comes any more, the reader hears it, and never takes half for the whole."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    key = await put(store, os.urandom(3 * MIB))
    meddler.cut_after, meddler.n_cuts = MIB, 1
    async with await store.read(key) as chunks:
        await anext(aiter(chunks))
        meddler.answer = lambda _head: b"HTTP/1.1 206 Partial\r\nContent-Length: 999\r\n\r\n"
        with pytest.raises(StorageUnavailable, match="broke off"):
            [chunk async for chunk in chunks]
    await store.close()


async def test_an_object_that_changes_under_a_reader_is_an_error(
    seaweed: Seaweed, meddler: Meddler
) -> None:
    """A read that is resumed never mixes two objects."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    key = await put(store, os.urandom(3 * MIB))
    meddler.cut_after, meddler.n_cuts = MIB, 1
    async with await store.read(key) as chunks:
        await anext(aiter(chunks))
        await store.delete(key)
        await put(store, os.urandom(3 * MIB), key)
        with pytest.raises(StorageUnavailable, match="went away"):
            [chunk async for chunk in chunks]
    await store.close()


@pytest.mark.parametrize("size", [1000, 9 * MIB])
async def test_an_answer_that_was_lost_is_not_a_taken_key(
    seaweed: Seaweed, meddler: Meddler, size: int
) -> None:
    """The store has the object and we did not hear it: the repeat finds its own, and is content."""
    store, n_lost = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint), 0

    def swallow(head: str) -> bool:
        nonlocal n_lost
        is_last = (head.startswith("POST") and "uploadId=" in head) or (
            head.startswith("PUT") and "partNumber" not in head
        )
        n_lost += is_last
        return is_last and n_lost == 1

    meddler.swallow = swallow
    data = os.urandom(size)
    key = await put(store, data)
    assert n_lost >= 2
    assert await store.read_whole(key, max_bytes=size) == data
    with pytest.raises(ObjectExists):
        await put(store, data, key)
    await store.close()


async def test_a_store_that_is_too_busy_is_asked_again(seaweed: Seaweed, meddler: Meddler) -> None:
    """`503 SlowDown` is an invitation to come back; three times in a row it is an error."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    key = await put(store, b"x")
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
    refusal = b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    n_refusals = 1

    def answer(_head: str) -> bytes | None:
        nonlocal n_refusals
        n_refusals -= 1
        return refusal if n_refusals >= 0 else None

    meddler.answer = answer
    assert await store.size(key) == 1
    n_refusals = 3
    with pytest.raises(StorageUnavailable, match="too busy"):
        await store.read(key)
    assert await store.size(key) == 1
    await store.close()


async def test_a_store_that_is_full_is_said_to_be(seaweed: Seaweed, meddler: Meddler) -> None:
    """A quota and a full disk are 503, until somebody has made room."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    body = b"<Error><Code>QuotaExceeded</Code><Message>full</Message></Error>"
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body)
    meddler.answer = lambda _head: head + body
    with pytest.raises(StorageFull):
        await put(store, b"x")
    meddler.answer = lambda _head: b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(StorageFull):
        await put(store, b"x" * 9 * MIB)
    await store.close()


async def test_a_store_without_conditional_writes_is_asked_first(
    seaweed: Seaweed, meddler: Meddler
) -> None:
    """Backblaze B2 refuses `If-None-Match`: the key is looked at before, and never overwritten."""
    store = s3_store(seaweed, AWS_ENDPOINT_URL=meddler.endpoint)
    body = b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"
    head = b"HTTP/1.1 501 Not Implemented\r\nContent-Length: %d\r\n\r\n" % len(body)
    meddler.answer = lambda text: head + body if "if-none-match" in text.lower() else None
    for data in (b"small" * 200_000, os.urandom(9 * MIB)):
        key = await put(store, data)
        with pytest.raises(ObjectExists):
            await put(store, b"other", key)
        assert await store.read_whole(key, max_bytes=len(data)) == data
    await store.write_marker(INSTANCE)
    with pytest.raises(StrangerStore):
        await store.write_marker(INSTANCE.replace("1", "2"))
    await store.close()


# --- What is left, and what is not ----------------------------------------------------------------


async def test_deletion_reaches_the_bytes_in_a_bucket_with_versions(seaweed: Seaweed) -> None:
    """Deleted means deleted: versions and markers are gone too."""
    name = f"versions-{os.getpid()}"
    async with await raw_client(seaweed) as client:
        await client.create_bucket(Bucket=name)
        await client.put_bucket_versioning(
            Bucket=name, VersioningConfiguration={"Status": "Enabled"}
        )
        store = s3_store(seaweed, url=f"s3://{name}/folder")
        await store.write_marker(INSTANCE)
        keys = [await put(store, b"one"), await put(store, os.urandom(9 * MIB))]
        await store.check()
        for key in keys:
            await store.delete(key)
            assert await store.size(key) is None
        left = await client.list_object_versions(Bucket=name)
        versions = [*left.get("Versions", []), *left.get("DeleteMarkers", [])]
        assert {item["Key"] for item in versions} == {"folder/agentsight-instance"}
    await store.close()


async def test_a_writer_leaves_no_parts_and_no_files(
    store: S3BlobStore, seaweed: Seaweed, tmp_path: Path
) -> None:
    """An upload that is given up is removed from the store at once; our disk shows no file."""
    async with await store.create(new_key()) as writer:
        await writer.write(os.urandom(20 * MIB))
        assert list(tmp_path.iterdir()) == []
    assert await store.count_leftovers(older_than_s=-60) == (0, 0)


async def test_a_crash_leaves_what_a_sweep_finds(store: S3BlobStore) -> None:
    """Parts without an end are found by their age, counted, and removed."""
    key = new_key()
    upload_id = await store._bucket.begin(key, token="crashed")
    assert await store.count_leftovers(older_than_s=3600) == (0, 0)
    assert await store.count_leftovers(older_than_s=-60) == (1, 0)
    assert await store.count_leftovers(older_than_s=-60, besides={key}) == (0, 0)
    assert await store.sweep(older_than_s=-60, besides={key}) == 0
    assert await store.sweep(older_than_s=-60) == 1
    await store._bucket.abort(key, upload_id)


async def test_folders_of_one_bucket_do_not_see_each_other(seaweed: Seaweed) -> None:
    """Listing, sweeping and reading end at our prefix."""
    first, second = s3_store(seaweed), s3_store(seaweed)
    key = await put(first, b"mine")
    await first._bucket.begin(new_key(), token="mine")
    assert [item async for item in second.list_objects("")] == []
    assert await second.sweep(older_than_s=-60) == 0
    with pytest.raises(ObjectMissing):
        await second.read(key)
    assert await first.sweep(older_than_s=-60) == 1
    await first.close()
    await second.close()


async def test_what_others_put_into_the_folder_is_not_listed(
    store: S3BlobStore, seaweed: Seaweed
) -> None:
    """Only names of our shape are objects of ours."""
    prefix = store._bucket._prefix
    async with await raw_client(seaweed) as client:
        for name in ("README.md", ".hidden", "a b", "blobs/"):
            await client.put_object(Bucket=BUCKET, Key=prefix + name, Body=b"x")
    key = await put(store, b"ours")
    assert [item.key async for item in store.list_objects("")] == [key]


async def test_more_than_a_page_of_objects_is_listed(store: S3BlobStore) -> None:
    """A listing goes on where the store's page of a thousand ends."""
    keys = [new_key() for _ in range(1050)]
    slots = asyncio.Semaphore(32)

    async def small(key: str) -> None:
        async with slots:
            await put(store, b"", key)

    await asyncio.gather(*map(small, keys))
    assert sorted(keys) == sorted([item.key async for item in store.list_objects("blobs/3/")])


# --- Links to the store itself --------------------------------------------------------------------


async def test_a_presigned_link_opens_one_object_for_a_while(
    store: S3BlobStore, seaweed: Seaweed
) -> None:
    """It answers with our headers and honours ranges; nothing else opens without a signature."""
    key = await put(store, b"0123456789")
    disposition = "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A9%20b.txt"
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "Content-Disposition": disposition,
        "cache-control": "private, max-age=60",
    }
    url = await store.presigned_url(key, expires_s=60, headers=headers)
    assert url is not None
    with urlopen(url) as answer:  # noqa: ASYNC210 - nothing else runs here
        assert answer.read() == b"0123456789"
        for name, value in headers.items():
            assert answer.headers[name] == value
    for other in (url.partition("?")[0], url.replace(key[-4:], "0000"), url.replace("60", "99")):
        with pytest.raises(HTTPError) as refused:
            urlopen(other)  # noqa: ASYNC210
        assert refused.value.code in (400, 403)
        refused.value.close()


async def test_browsers_may_be_sent_to_another_address(seaweed: Seaweed) -> None:
    """The signature covers the host, so the public address is signed and not put in afterwards."""
    public = seaweed.endpoint.replace("127.0.0.1", "localhost")
    store = s3_store(seaweed, public_endpoint=public)
    key = await put(store, b"public")
    url = await store.presigned_url(key, expires_s=60, headers={})
    assert url is not None
    assert url.startswith(f"{public}/{BUCKET}/")
    with urlopen(url) as answer:  # noqa: ASYNC210
        assert answer.read() == b"public"
    await store.close()


# --- What it costs --------------------------------------------------------------------------------


async def test_parts_wait_on_the_disk_and_not_in_memory(store: S3BlobStore) -> None:
    """Writers hold a few batches each, and no part."""
    piece = os.urandom(MIB)

    async def write() -> None:
        async with await store.create(new_key()) as writer:
            for _ in range(9):
                await writer.write(piece)
            await writer.finish()

    await write()  # what is loaded once
    tracemalloc.start()
    try:
        await asyncio.gather(*(write() for _ in range(16)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 3 * MIB


def test_a_local_store_loads_no_library_for_object_storage() -> None:
    """Its half second and forty megabytes are paid by whom it serves."""
    code = (
        "import sys; from agentsight.server.app import create_app;"
        "from agentsight.server.blobs.opening import open_blob_store;"
        "open_blob_store('file:///tmp'); open_blob_store('s3://bucket');"
        "print([n for n in ('botocore', 'aiobotocore', 'aiohttp') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
