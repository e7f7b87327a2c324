"""Tie the database and the store of bytes together, and notice when they do not belong together.

Two facts stand on both sides. The instance's uid is made by the database and written into the store
as its marker: a store that belongs to another instance is refused. The store's own uid is made by
the store and noted in the database: so a database is never served with an empty or a second store,
as it would be by two hosts with one PostgreSQL and a `file://` store each.

The order of the steps is what makes any number of processes starting at once agree: each side is
read before the other is written, and the first writer wins on both.
"""

from __future__ import annotations

from agentsight.server.blobs import BlobStore, ObjectExists, ObjectMissing, StrangerStore
from agentsight.server.db import Database, Tx
from agentsight.server.ids import new_uid
from agentsight.server.instance import store

STORE_KEY = "agentsight-store"
"""The object that holds the store's own uid; made once, never changed, to be copied when moving."""
_MAX_UID_BYTES = 64

_MOVED = (
    "If the files were moved, copy all of the old store, the objects agentsight-instance and"
    " agentsight-store with it."
)


async def join_instance(db: Database, blobs: BlobStore, *, now_us: int) -> str:
    """Return the instance's uid, making it, and marking the store, on the very first start.

    Raises:
        StrangerStore: The store belongs to another instance, or the database to another store.
    """
    marker = await blobs.read_marker()  # before the database: whoever wrote it has its uid there
    known_uid, known_store = await _known(db)
    if known_uid is None and marker is not None:
        raise StrangerStore(
            f"The store holds the files of instance {marker}, and this database is a new one."
            " Use that instance's database, or an empty store."
        )
    found_store = await _read_store_uid(blobs)
    if known_store is not None and found_store != known_store:
        raise StrangerStore(
            f"This database's files are in another store (uid {known_store}, here"
            f" {found_store or 'none'}): a wrong or emptied bucket or directory, or a second host"
            f" with a directory of its own. {_MOVED}"
        )
    uid = known_uid or await _claim(db, store.INSTANCE_UID, new_uid(now_us), now_us)
    _refuse_stranger(marker, uid)
    if marker is None:
        await blobs.write_marker(uid)
    if known_store is None:
        store_uid = found_store or await _make_store_uid(blobs, new_uid(now_us))
        if await _claim(db, store.STORE_UID, store_uid, now_us) != store_uid:
            raise StrangerStore(
                "Another host started with this database and a store of its own at the same time."
                " Let them run on one host, with one directory."
            )
    return uid


async def check_instance(db: Database, blobs: BlobStore) -> str:
    """Return the instance's uid if database and store still belong together; change nothing.

    Raises:
        StrangerStore: They do not, or the instance has never started.
    """
    uid, _ = await _known(db)
    if uid is None:
        raise StrangerStore("This database has not been served yet: run agentsight serve.")
    marker = await blobs.read_marker()
    if marker is None:
        raise StrangerStore(f"The store has lost its marker, or is not this instance's. {_MOVED}")
    _refuse_stranger(marker, uid)
    return uid


def _refuse_stranger(marker: str | None, uid: str) -> None:
    if marker is not None and marker != uid:
        raise StrangerStore(
            f"The store holds the files of instance {marker}, and this database is instance {uid}."
        )


async def _known(db: Database) -> tuple[str | None, str | None]:
    async def query(tx: Tx) -> tuple[str | None, str | None]:
        uid = await store.read_value(tx, store.INSTANCE_UID)
        return uid, await store.read_value(tx, store.STORE_UID)

    return await db.read(query)


async def _claim(db: Database, name: str, value: str, now_us: int) -> str:
    async def unit(tx: Tx) -> None:
        await store.claim_value(tx, name, value, now_us)

    await db.write(unit)
    # Read apart: on PostgreSQL a transaction may not see the row that it lost against.
    return await db.read(lambda tx: store.read_value(tx, name)) or value


async def _read_store_uid(blobs: BlobStore) -> str | None:
    try:
        found = await blobs.read_whole(STORE_KEY, max_bytes=_MAX_UID_BYTES)
    except ObjectMissing:
        return None
    return found.decode("ascii", "replace")


async def _make_store_uid(blobs: BlobStore, uid: str) -> str:
    try:
        async with await blobs.create(STORE_KEY) as writer:
            await writer.write(uid.encode())
            await writer.finish()
    except ObjectExists:
        return await _read_store_uid(blobs) or uid
    return uid
