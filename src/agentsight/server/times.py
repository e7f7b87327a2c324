"""Times: µs since 1970 UTC inside, ISO 8601 with `Z` outside, read leniently."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def to_datetime(time_us: int) -> datetime:
    """Return the time as an aware datetime, which msgspec writes as ISO 8601 with `Z`."""
    return _EPOCH + timedelta(0, 0, time_us)  # by keyword it takes half as long again


def optional_datetime(time_us: int | None) -> datetime | None:
    """Return the time as an aware datetime, or None."""
    return None if time_us is None else to_datetime(time_us)


def to_text(time_us: int) -> str:
    """Return the time as ISO 8601 with `Z`, with microseconds only where there are any."""
    return to_datetime(time_us).isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> int | None:
    """Read an ISO 8601 date or time; without an offset it is UTC. None if it is no time.

    A `+` that a query string turned into a space is read as the plus it was.
    """
    candidate = text.strip()
    if " " in candidate and candidate.count(":") >= 2 and "T" in candidate:
        candidate = candidate.replace(" ", "+")
    try:
        parsed = datetime.fromisoformat(candidate)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        time_us = (parsed - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None
    # An offset can push the first and the last day out of what UTC can show.
    return time_us if _FIRST <= time_us <= _LAST else None
