"""Tails: what visits to an unfinished object have brought of a part that is not full yet.

A visit that ends stores what it has brought as an object of its own, beside the tails of earlier
visits, so that a byte more costs a byte and not eight megabytes. Each tail is at least twice as
long as the next: one that is not is stored anew together with what follows it. So a part has few
of them, whatever the visits bring, and a byte is stored anew a few times at most. They are read
once, when their part is full or the last, and pass through a file.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Final

from agentsight.server.blobs.errors import ObjectMissing, StorageUnavailable
from agentsight.server.blobs.s3_spool import Spool, Workshop
from agentsight.server.blobs.s3_stream import S3Stream

TAILS: Final = "tmp/"
"""Where tails wait, below the key of their object. Never listed as objects."""


def tail_key(key: str, name: str) -> str:
    """Build the key of a tail."""
    return f"{TAILS}{key}/{name}"


def new_name(n_parts: int, n_bytes: int) -> str:
    """Name a tail of `n_bytes` behind `n_parts` parts. Never the same twice: the state that names
    another may still be what the caller's row says."""
    return f"{n_parts}-{n_bytes}-{secrets.token_hex(4)}"


def bytes_of(tails: Sequence[str]) -> int:
    """Return how many bytes tails have together, as their names say."""
    return sum(int(name.split("-")[1]) for name in tails)


def count_kept(tails: Sequence[str], n_bytes: int) -> int:
    """Return how many tails stay as they are when `n_bytes` come behind them; the rest are stored
    anew, together with those."""
    n_kept = len(tails)
    while n_kept and bytes_of(tails[n_kept - 1 : n_kept]) < 2 * n_bytes:
        n_kept -= 1
        n_bytes += bytes_of(tails[n_kept : n_kept + 1])
    return n_kept


async def are_there(shop: Workshop, key: str, tails: Sequence[str]) -> bool:
    """Say whether the store has all of these tails, and whole; one request."""
    found = {item.key: item.size_bytes async for item in shop.bucket.list(tail_key(key, ""))}
    return all(found.get(tail_key(key, name)) == bytes_of([name]) for name in tails)


async def join(shop: Workshop, key: str, tails: Sequence[str], rest: Spool) -> Spool:
    """Bring tails and what follows them into one file, which the caller closes; `rest` stays.

    Raises:
        StorageUnavailable: A tail is gone or cannot be read.
    """
    whole = Spool()
    try:
        for name in tails:
            await _read_into(shop, whole, tail_key(key, name))
        if whole.n_bytes != bytes_of(tails):
            raise StorageUnavailable(f"The upload of {key} has lost bytes.")
        await shop.run(partial(whole.append_all, shop.spool_dir, rest))
        await shop.run(whole.flush)
    except BaseException:
        whole.close()
        raise
    return whole


async def _read_into(shop: Workshop, whole: Spool, key: str) -> None:
    stream = S3Stream(shop.bucket, key, 0, None)
    try:
        await stream.open()
    except ObjectMissing as error:
        raise StorageUnavailable(f"A part of an upload is gone: {key}") from error
    async with stream as chunks:
        async for chunk in chunks:
            await shop.run(partial(whole.append, shop.spool_dir, chunk))
