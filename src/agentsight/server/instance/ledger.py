"""The key of the erasures ledger: by it alone can be told whether something was erased.

What was erased is remembered as a keyed hash. Without a key, whoever saw the hashes could try all
telephone numbers and learn who asked to be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from agentsight.server.db import Database, Tx
from agentsight.server.instance import store


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """Makes the hashes. Scopes are row ids: an agent's for what is unique in it, or an
    organisation's."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Return what tells keys apart, and nothing of the key."""
        return hashlib.sha256(b"agentsight ledger key id\0" + self.secret).hexdigest()[:16]

    def _hash(self, kind: str, scope: int, subject: str) -> str:
        if not self.secret:
            raise RuntimeError("the ledger has no key: make Parts with ledger=await ledger_key(db)")
        text = f"{kind}\0{scope}\0{subject}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.secret, text, "sha256").hex()

    def of_conversation(self, agent_id: int, conversation_id: str) -> str:
        """Hash an agent's conversation id."""
        return self._hash("conversation", agent_id, conversation_id)

    def of_customer(self, organisation_id: int, customer_id: str) -> str:
        """Hash an organisation's customer id, exactly as it is written."""
        return self._hash("customer", organisation_id, customer_id)

    def of_attachment(self, agent_id: int, uid: str) -> str:
        """Hash an attachment's uid, by which a restore finds it."""
        return self._hash("attachment", agent_id, uid)

    def of_attachment_item(self, agent_id: int, item_key: str) -> str:
        """Hash the key under which an attachment was sent, which a resend carries again."""
        return self._hash("attachment item", agent_id, item_key)


NO_LEDGER_KEY = LedgerKey(b"")
"""Of parts that never erase nor take anything in; using it is an error."""


async def ledger_key(db: Database, *, now_us: int) -> LedgerKey:
    """Return the instance's key; the first call makes it, and all callers agree on one."""

    async def read(tx: Tx) -> str | None:
        return await store.read_value(tx, store.LEDGER_KEY)

    kept = await db.read(read)
    if kept is None:
        secret = secrets.token_hex(32)

        async def claim(tx: Tx) -> None:
            await store.claim_value(tx, store.LEDGER_KEY, secret, now_us)

        await db.write(claim)
        # Read apart: on PostgreSQL a transaction may not see the row that it lost against.
        kept = await db.read(read) or secret
    return LedgerKey(bytes.fromhex(kept))
