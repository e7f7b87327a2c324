"""What an operator can do: have rows and objects compared, and have mended what can be.

May run beside a server: whatever looks wrong is asked for again before it is called a fault, and an
object without a row is left alone until it is older than any request could be.
"""

from __future__ import annotations

from typing import Final

from agentsight.server.blobs import BlobStore, ListedObject
from agentsight.server.fsck.checks import Check
from agentsight.server.fsck.model import Options, Report
from agentsight.server.fsck.store_listing import Listing
from agentsight.server.parts import Parts
from agentsight.server.removals.service_chores import carry_on

PREFIXES: Final = ("blobs/", "derived/")
_STEP_OBJECTS: Final = 5_000
_STEPS_AT_ONCE: Final = 500


async def check_instance_files(parts: Parts, options: Options, *, now_us: int) -> Report:
    """Compare everything; with `options.is_repairing` mend what can be mended.

    Repairing removes objects that no row names, forgets copies that are gone, carries on what was
    broken off in removing, counts anew, and copies facts again. Bytes that are gone cannot be
    mended here: they are reported.

    Raises:
        StorageUnavailable, DatabaseError: One of the two does not answer.
    """
    db, blobs, report = parts.db, parts.blobs, Report()
    with Listing() as listing:
        check = Check(db, blobs, options, report, listing)
        await _list_all(blobs, listing, report)
        await check.blobs_have_objects()
        await check.copies_have_objects()
        await check.objects_have_rows(now_us)
    await check.removals_are_finished(lambda: carry_on(parts, n_steps=_STEPS_AT_ONCE))
    await check.counts_are_right()
    await check.facts_are_copied()
    await check.leftovers_are_swept(parts.settings.leftover_age_s(), now_us)
    return report


async def _list_all(blobs: BlobStore, listing: Listing, report: Report) -> None:
    step: list[ListedObject] = []
    for prefix in PREFIXES:
        async for item in blobs.list_objects(prefix):
            report.n_objects += 1
            step.append(item)
            if len(step) >= _STEP_OBJECTS:
                listing.add(step)
                step.clear()
    listing.add(step)
