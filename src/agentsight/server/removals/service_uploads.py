"""End the uploads of erased contents, a stride each step: a part of the stage `objects`.

A content that goes is `deleting` meanwhile, so no message can refer to it by an upload any more,
and its row tells whose turn is next until the last one has ended.
"""

from __future__ import annotations

import secrets
from typing import Final

from agentsight.server.access import job_access
from agentsight.server.blobs import ObjectBusy
from agentsight.server.db import Tx
from agentsight.server.ids import OrganisationId
from agentsight.server.parts import Parts
from agentsight.server.removals import store_receipts, store_uploads
from agentsight.server.removals.model import read_content_name
from agentsight.server.removals.store_blobs import GoingBlob
from agentsight.server.removals.store_receipts import Work
from agentsight.server.removals.store_uploads import HeldUpload
from agentsight.server.uploads.model import LEASE_S

_STRIDE_ROWS: Final = 500
_WHENEVER_US: Final = 2**62
_STRIDE_CONTENTS: Final = 200
_STRIDE_UNFINISHED: Final = 20
"""Each has bytes of its own to remove."""


async def end_uploads(parts: Parts, receipt_uid: str, blob: GoingBlob) -> None:
    """End some of the stored uploads of a content that goes."""
    access, now = job_access(OrganisationId(blob.organisation_id), blob.agent_id), parts.clock()

    async def unit(tx: Tx) -> None:
        held = await store_receipts.hold(tx, receipt_uid, "objects")
        if held is None:
            return
        held.receipt.rows.uploads += await store_uploads.end_stored(
            tx, access, blob.blob_id, made_until_us=_WHENEVER_US, limit=_STRIDE_ROWS, now_us=now
        )
        await store_receipts.put(tx, held, now_us=now)

    await parts.db.write(unit)


async def end_uploads_of_kept(parts: Parts, receipt_uid: str) -> None:
    """End some of the stored uploads that were of erased attachments, of contents that stay.

    They stay for a younger upload. What another attachment has is left alone: its upload may be
    any of them.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        held = await store_receipts.hold(tx, receipt_uid, "objects")
        if held is None:
            return
        room = _STRIDE_ROWS
        for name, until in list(held.receipt.sent_until.items())[:_STRIDE_CONTENTS]:
            agent_id, blob_id = read_content_name(name)
            access = job_access(held.organisation_id, agent_id)
            n_ended = 0
            if not await store_uploads.is_referred(tx, access, blob_id):
                n_ended = await store_uploads.end_stored(
                    tx, access, blob_id, made_until_us=until, limit=room, now_us=now
                )
            held.receipt.rows.uploads += n_ended
            room -= n_ended
            if room <= 0:
                break
            del held.receipt.sent_until[name]
        await store_receipts.put(tx, held, now_us=now)

    await parts.db.write(unit)


async def end_unfinished(parts: Parts, work: Work, blob: GoingBlob) -> bool:
    """End some unfinished uploads of a content that goes, and remove what came of them.

    Returns:
        False when somebody still writes one: they are told at their next note, within seconds.
    """
    access, now = job_access(OrganisationId(blob.organisation_id), blob.agent_id), parts.clock()
    lease = secrets.token_hex(16)
    held = await parts.db.write(
        lambda tx: store_uploads.hold_unfinished(
            tx,
            access,
            blob.sha256,
            lease,
            begun_until_us=work.receipt.asked_at,
            until_us=now + LEASE_S * 1_000_000,
            limit=_STRIDE_UNFINISHED,
            now_us=now,
        )
    )
    n_busy = 0
    for upload in held:
        try:
            await parts.blobs.abandon_parts(upload.object_key, upload.parts)
            await parts.blobs.delete(upload.object_key)
        except ObjectBusy:
            n_busy += 1
            continue

        async def unit(tx: Tx, upload: HeldUpload = upload) -> None:
            receipt = await store_receipts.hold(tx, work.uid, "objects")
            n_ended = await store_uploads.end_held(tx, access, upload.uid, lease, now_us=now)
            if receipt is not None and n_ended:
                receipt.receipt.rows.uploads += n_ended
                await store_receipts.put(tx, receipt, now_us=now)

        await parts.db.write(unit)
    return n_busy == 0
