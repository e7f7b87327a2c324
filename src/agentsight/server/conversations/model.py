"""What a conversation is: its fields, and the rules that need neither clock nor database."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import iptocc

from agentsight.server.ids import ConversationPk


@dataclass(frozen=True, slots=True)
class Head:
    """What a write needs to know of a conversation that exists."""

    pk: ConversationPk
    uid: str
    conversation_id: str
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewConversation:
    """The fields a caller gives; None is "no opinion".

    `environment` is a clean slug; `metadata` is JSON text; `started_at` is µs since 1970 UTC;
    `country` is where the address is (ISO 3166-1 alpha-2).
    """

    conversation_id: str
    environment: str
    started_at: int
    customer_id: str | None = None
    customer_ip_address: str | None = None
    device: str | None = None
    source: str | None = None
    language: str | None = None
    name: str | None = None
    metadata: str | None = None
    is_used: bool = False
    country: str | None = None


def country_of(ip_address: str | None) -> str | None:
    """Return the ISO 3166-1 alpha-2 code of an address's country, offline.

    None for a private or unknown address and for what is no address at all: it is kept as text.
    """
    if ip_address is None:
        return None
    try:
        address = ipaddress.ip_address(ip_address.strip())
    except ValueError:
        return None
    if not address.is_global:
        return None
    return iptocc.country_code(str(address))
