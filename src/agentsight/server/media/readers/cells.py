"""How the values of cells are shown, in workbooks of every age: what dates are, and look like."""

from __future__ import annotations

import datetime
import re
from typing import Final

# Built-in formats of dates and times (ECMA-376, part 1, 18.8.30; [MS-XLS] 2.4.126).
DATE_FORMATS: Final = frozenset({*range(14, 23), *range(45, 48)})
EPOCH: Final = datetime.datetime(1899, 12, 30)  # noqa: DTZ001 - a workbook knows no time zone
EPOCH_1904: Final = datetime.datetime(1904, 1, 1)  # noqa: DTZ001 - likewise
_LITERAL: Final = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.')
_DATE_CODE: Final = re.compile(r"[ymdhs]", re.IGNORECASE)
_MAX_FORMAT_CHARS: Final = 1024
"""Excel takes 255; longer ones are made to be slow to read."""
_MAX_SERIAL: Final = 2_958_465  # 31 December 9999


def is_date_format(code: str) -> bool:
    """Tell whether a number format shows dates or times."""
    return _DATE_CODE.search(_LITERAL.sub("", code[:_MAX_FORMAT_CHARS])) is not None


def shown_date(serial: float, epoch: datetime.datetime) -> str | None:
    """Write days since the epoch as date, time or both; None for what is no date."""
    if not 0 <= serial <= _MAX_SERIAL:
        return None
    moment = epoch + datetime.timedelta(seconds=round(serial * 86_400))
    if serial < 1:
        return moment.strftime("%H:%M:%S")
    return f"{moment:%Y-%m-%d}" if serial.is_integer() else f"{moment:%Y-%m-%d %H:%M:%S}"
