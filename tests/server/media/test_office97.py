"""Word, Excel and PowerPoint of before 2007: told apart, and read; whatever a file claims."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentsight.server.blobs import HEAD_BYTES, detect_mime_type
from agentsight.server.media import Examined
from agentsight.server.media.kinds import COMPOUND, DOC, PPT, XLS
from agentsight.server.media.readers import office97
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import TextSink
from tests.server.media import legacy_samples as made
from tests.server.media.conftest import FILES, Desk, memory_of
from tests.server.media.legacy_samples import cell, chars, compound, record

_PATIENCE_S = 20.0
WORKBOOKS = {
    "a book": made.workbook({"S": cell(0x204, 0, 0, made.unicode_string("word"))}),
    "a show": made.presentation(made.listed(2, 256), b"", {2: made.slide(chars("word"))}),
}


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Give what reads bytes in this process."""
    return Look(tmp_path / "body")


class Look:
    """Reads compound files in the tests' own process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, body: bytes, max_chars: int = 500_000) -> Examined:
        self._path.write_bytes(body)
        return office97.examine(
            str(self._path), TextSink(max_chars, time.monotonic() + _PATIENCE_S)
        )

    def survives(self, body: bytes) -> bool:
        """Say whether a spoiled file has text; whatever it gives, it gives soon and in order."""
        began_at = time.monotonic()
        try:
            found = self(body)
        except NotReadable:
            return False
        assert time.monotonic() - began_at < _PATIENCE_S / 2
        return found.text is not None


# --- Real files -----------------------------------------------------------------------------------

CHAIRS_DOC = """\
Complaint about the blue chairs
Grüße aus Köln: the Möbelhaus has sent four chairs – three are “broken”.
Жалоба на стулья
Article\tPrice
Chair Düne\t45 €
See how to return them.\tAfter the tab
and a new line.
Signed
Last paragraph

\tWithin thirty days, says the footnote.

Kopfzeile Köln

Page 1 of the footer

A comment of Ada’s

In a text box"""

CHAIRS_XLS = """\
Ärger
Gerät\tСтул
45\t0.125\t-1234567.5
2003-05-04\t2003-05-04 12:30:00
90\tGerät kaputt\tTRUE\t#DIV/0!

Costs
Second sheet, line one
line two"""

CHAIRS_PPT = """\
Blue chairs
Only plain words

Say hello first

Ärger im Möbelhaus
Стулья сломаны – „kaputt“

Заметка: Geduld üben

Questions?
The end of it

Last note"""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "mime_type", "pages", "text"),
    [
        ("chairs.doc", DOC, None, CHAIRS_DOC),
        ("by-word.doc", DOC, None, "Test OLE file, saved as Word 97-2003 Document."),
        ("chairs.xls", XLS, 2, CHAIRS_XLS),
        ("chairs.ppt", PPT, 3, CHAIRS_PPT),
    ],
)
async def test_real_files_have_all_their_words(
    desk: Desk, name: str, mime_type: str, pages: int | None, text: str
) -> None:
    """Tables, links, footnotes, headers, comments, boxes; sheets; slides with notes, no masters."""
    facts = await desk.examine((FILES / name).read_bytes(), name)
    assert (facts.mime_type, facts.pages, facts.note) == (mime_type, pages, None)
    assert facts.text == text
    assert facts.has_preview
    assert not facts.is_text_cut


def test_a_workbook_of_another_program_reads_as_well(look: Look) -> None:
    """Booleans, dates, packed numbers, rich text, strings that go on in the next record."""
    facts = look((FILES / "by-xlwt.xls").read_bytes())
    assert facts.text
    head, _, long = facts.text.partition("\n\nLong\n")
    assert head.split("\n") == [
        "Größen",
        "Стул\tÉmile\tTRUE\tFALSE",
        "0\t100\t200\t300\t400",
        "1999-12-31\t2003-05-04 12:30:00\t09:15:00\t3.5",
        "-12.34\t1e+20\t0.333333333333333",
        "plain and rich text",
        "x" * 40,
    ]
    said = [f"{n}: {('ä' if n % 2 else 'ж') * (n % 60)}".strip() for n in range(300)]
    assert long.split("\n") == said
    assert facts.pages == 2


# --- Which program --------------------------------------------------------------------------------


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("table_first", [True, False])
@pytest.mark.parametrize(
    ("streams", "mime_type"),
    [
        (made.word("word"), DOC),
        ({"Workbook": WORKBOOKS["a book"]}, XLS),
        (WORKBOOKS["a show"], PPT),
        (made.word("word") | {"Pool/Workbook": WORKBOOKS["a book"]}, DOC),
        ({"Workbook": WORKBOOKS["a book"]}
         | {f"Pool/{name}": body for name, body in made.word("other").items()}, XLS),
    ],
)  # fmt: skip
def test_the_streams_at_the_root_tell_the_program(
    look: Look, streams: dict[str, bytes], mime_type: str, table_first: bool, sector_bytes: int
) -> None:
    """Wherever the directory is, and whatever is embedded."""
    facts = look(compound(streams, table_first=table_first, sector_bytes=sector_bytes))
    assert (facts.mime_type, facts.text and facts.text.split()[-1]) == (mime_type, "word")


def test_a_guess_by_the_first_bytes_is_set_right(look: Look) -> None:
    """An embedded workbook comes first; the directory is too far behind for the first look."""
    streams = {"Pool/Workbook": WORKBOOKS["a book"].ljust(10_000, b"\0"), **made.word("word")}
    body = compound(streams, table_first=False)
    assert detect_mime_type(body[:HEAD_BYTES], len(body)) == XLS
    assert look(body).mime_type == DOC


@pytest.mark.anyio
async def test_a_compound_file_of_another_program_is_left_alone(desk: Desk) -> None:
    """Mails of Outlook, installers, thumbnails: no text, no note, no error."""
    facts = await desk.examine(compound({"__properties_version1.0": b"x"}), "mail.msg")
    assert facts == Examined(mime_type=COMPOUND)


def test_a_locked_document_of_today_says_so(look: Look) -> None:
    """It lies in a compound file, encrypted."""
    with pytest.raises(NotReadable, match="password"):
        look(compound({"EncryptionInfo": b"x", "EncryptedPackage": b"x"}))


# --- Word -----------------------------------------------------------------------------------------


def test_pieces_of_one_and_two_bytes_are_joined_in_order(look: Look) -> None:
    """Single bytes are of Windows' code page; a pair of surrogates may be cut by a piece's end."""
    high, low = ("😀".encode("utf-16-le")[at : at + 2] for at in (0, 2))
    halves = [half.decode("utf-16-le", "surrogatepass") for half in (high, low)]
    pieces = ("Grüße „so“ 5 €".encode("cp1252"), " Жалоба ", *halves, b"\rEnd")
    assert look(compound(made.word(*pieces))).text == "Grüße „so“ 5 € Жалоба 😀\nEnd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('a\x13 HYPERLINK "x" \x14link\x15 b', "alink b"),
        ("a\x13 IF \x13 PAGE \x141\x15 = 1 \x14yes\x15 b", "ayes b"),
        ("a\x13 INCLUDE \x14one \x13 DATE \x14two\x15 three\x15 b", "aone two three b"),
        ("a\x13 PAGE \x15b", "ab"),
        ("a\x15\x14b\x13 never ends", "ab"),
        ("One\x07Two\x07\x07Three\x07Four\x07\x07end", "One\tTwo\nThree\tFour\nend"),
        ("a\x0bb\x0cc\rd\x0ee\x1ef\x1fg\x01\x02\x05\x08h", "a\nb\nc\nd\ne-fgh"),
    ],
)
def test_fields_show_their_results_and_marks_what_they_mean(
    look: Look, text: str, shown: str
) -> None:
    """What a field is made by is no word of the document."""
    assert look(compound(made.word(text))).text == shown
    assert look(compound(made.word(text.encode("cp1252")))).text == shown


def test_a_field_that_never_ends_hides_no_more_than_its_part(look: Look) -> None:
    """Footnotes and headers follow all the same."""
    streams = made.word("Main\x13 no", "Foot", "Head", "Note", lengths=[8, 4, 4, 99, 4])
    assert look(compound(streams)).text == "Main\nFoot\nHead\nNote"


@pytest.mark.parametrize(
    ("streams", "note"),
    [
        (made.word("x", flags=0x0300), "locked by a password"),
        (made.word("x", magic=0xA5DC), "written by Word of before 1997"),
        (made.word("x", magic=0), "it does not begin as a document does"),
        (made.word("x", clx=b""), "its piece table is not there"),
        (made.word("x", clx=b"\x01\xff\xff"), "its piece table is not there"),
        (made.word("x", clx=b"\x02\xff\xff\xff\xff"), "its piece table is not there"),
        ({"WordDocument": made.word("x")["WordDocument"]}, "a stream is not there"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(
    look: Look, streams: dict[str, bytes], note: str
) -> None:
    """Its type is known all the same."""
    facts = look(compound(streams))
    assert (facts.mime_type, facts.text, facts.note) == (DOC, None, note)


def test_the_document_says_which_of_two_tables_counts(look: Look) -> None:
    """The other may be left from an earlier save."""
    streams = {"1Table": b"old", **made.word("word", flags=0)}
    assert look(compound(streams)).text == "word"


# --- Excel ----------------------------------------------------------------------------------------


def test_a_string_goes_on_in_the_next_record_in_another_width(look: Look) -> None:
    """Runs of format and of sounds are passed over wherever records part them."""
    plain = struct.pack("<HB", 5, 0) + b"ab"
    goes_on = b"\x01" + "жжж".encode("utf-16-le")
    rich = struct.pack("<HBHI", 2, 0x0D, 1, 3) + "яж".encode("utf-16-le") + b"\0\0"
    rest = b"\0\0snd" + struct.pack("<HB", 3, 0) + b"end"
    strings = record(0xFC, struct.pack("<II", 9, 3) + plain) + record(0x3C, goes_on + rich)
    cells = b"".join(cell(0xFD, n, 0, struct.pack("<I", n)) for n in (0, 1, 2, 3))
    book = made.workbook({"S": cells}, strings + record(0x3C, rest))
    assert look(compound({"Workbook": book})).text == "S\nabжжж\nяж\nend"


def test_formulas_show_the_value_that_was_saved(look: Look) -> None:
    """A number, a text (which follows in a record of its own), true or false, an error, nothing."""

    def formula(column: int, value: bytes) -> bytes:
        return cell(0x06, 0, column, value.ljust(6, b"\0") + b"\xff\xff" + bytes(6))

    cells = (
        cell(0x06, 0, 0, struct.pack("<d", 2.5) + bytes(6))
        + formula(1, b"\0")
        + record(0x4BC, b"shared")
        + record(0x207, made.unicode_string("текст"))
        + formula(2, b"\1\0\1")
        + formula(3, b"\2\0\x2a")
        + formula(4, b"\3")
        + cell(0x205, 0, 5, b"\x17\1")
    )
    assert look(compound({"Workbook": made.workbook({"S": cells})})).text == (
        "S\n2.5\tтекст\tTRUE\t#N/A\t#REF!"
    )


@pytest.mark.parametrize(("is_1904", "shown"), [(0, "2003-05-04"), (1, "2007-05-05")])
def test_numbers_that_are_dates_are_dates(look: Look, is_1904: int, shown: str) -> None:
    """By built-in formats and own ones, from the day that the workbook counts from."""
    own = record(0x41E, struct.pack("<H", 170) + made.unicode_string("dd\\.mm\\.yyyy"))
    days = record(0x41E, struct.pack("<H", 171) + made.unicode_string('0 "days"'))
    styles = b"".join(record(0xE0, struct.pack("<HH16x", 0, n)) for n in (0, 14, 170, 171))
    whole = 37745 << 2 | 2
    cells = b"".join(cell(0x27E, 0, n, struct.pack("<I", whole), style=n) for n in range(4))
    cells += record(0xBD, struct.pack("<HHHIHIH", 1, 0, 0, 100 << 2 | 3, 1, whole, 1))
    book = made.workbook(
        {"S": cells}, record(0x22, struct.pack("<H", is_1904)) + own + days + styles
    )
    assert look(compound({"Workbook": book})).text == (
        f"S\n37745\t{shown}\t{shown}\t37745\n1\t{shown}"
    )


def test_a_workbook_of_excel_95_is_read_in_its_code_page(look: Look) -> None:
    """Bytes are letters of the page that it names."""
    cells = cell(0x204, 0, 0, struct.pack("<H", 4) + "Стул".encode("cp1251"))
    book = made.workbook({"Цены": cells}, record(0x42, struct.pack("<H", 1251)), version=0x0500)
    facts = look(compound({"Book": book}))
    assert (facts.mime_type, facts.text, facts.pages) == (XLS, "Цены\nСтул", 1)


def test_charts_are_no_sheets(look: Look) -> None:
    """Neither one by itself, nor one on a sheet, which repeats the numbers it shows."""
    chart = made.begin(0x20) + cell(0x203, 0, 0, struct.pack("<d", 7)) + record(0x0A)
    cells = (
        cell(0x203, 0, 0, struct.pack("<d", 1)) + chart + cell(0x203, 1, 0, struct.pack("<d", 2))
    )
    facts = look(compound({"Workbook": made.workbook({"S": cells})}))
    assert (facts.text, facts.pages) == ("S\n1\n2", 1)
    facts = look(compound({"Workbook": made.workbook({"Chart": cells}, kind=2)}))
    assert (facts.text, facts.pages) == (None, None)


def test_a_locked_workbook_says_so(look: Look) -> None:
    """Its records are encrypted from there on."""
    book = made.workbook({"S": b""}, record(0x2F, bytes(6)))
    facts = look(compound({"Workbook": book}))
    assert (facts.mime_type, facts.note) == (XLS, "locked by a password")


# --- PowerPoint -----------------------------------------------------------------------------------

MASTER = made.holder(0x03F8, chars("Click to edit the master"))


def test_slides_come_in_the_order_of_the_list_with_their_notes(look: Look) -> None:
    """What is saved last may be shown first; texts of placeholders stand in the list."""
    comment = made.holder(0x2EE0, made.atom(0x0FBA, "Ada".encode("utf-16-le")),
                          made.atom(0x0FBA, "Why?".encode("utf-16-le"), 1))  # fmt: skip
    tag = made.atom(0x0FBA, "___PPT10".encode("utf-16-le"))
    footer = made.holder(0x0FD9, made.atom(0x0FBA, "Foot".encode("utf-16-le"), 2))
    objects = {
        9: MASTER,
        2: made.slide(chars("Second"), tag),
        3: made.slide(made.atom(0x0FA8, b"B\xf6x"), chars("*"), footer, comment, notes_id=300),
        4: made.notes(chars("Master of notes"), slide_id=0),
        5: made.notes(chars("Note"), slide_id=257),
    }
    slides = made.listed(3, 257, chars("Title\x0bof two")) + made.listed(2, 256)
    streams = made.presentation(slides, made.listed(5, 300), objects)
    facts = look(compound(streams))
    assert facts.text == "Title\nof two\nBöx\nFoot\nWhy?\n\nNote\n\nSecond"
    assert (facts.mime_type, facts.pages) == (PPT, 2)


def test_what_a_later_save_has_replaced_is_not_read(look: Look) -> None:
    """Quick saves leave the old slides where they were."""
    old = made.presentation(made.listed(2, 256), b"", {2: made.slide(chars("Old"))})
    older = old["PowerPoint Document"]
    streams = made.presentation(
        made.listed(2, 256), b"", {2: made.slide(chars("New"))}, older=older
    )
    assert look(compound(streams)).text == "New"


def test_without_its_lists_slides_are_found_one_by_one(look: Look) -> None:
    """Masters of slides and of notes are left out there, too."""
    objects = {
        9: MASTER,
        4: made.notes(chars("Master of notes"), slide_id=0),
        2: made.slide(chars("One")),
        5: made.notes(chars("Note")),
        3: made.slide(chars("Two")),
    }
    streams = made.presentation(b"", b"", objects)
    for user in (streams["Current User"], b"", bytes(40), b"\xff" * 40):
        facts = look(compound(streams | {"Current User": user}))
        assert (facts.text, facts.pages) == ("One\n\nNote\n\nTwo", 2)


@pytest.mark.parametrize(
    ("streams", "note"),
    [
        (
            WORKBOOKS["a show"]
            | {"Current User": made.atom(0x0FF6, struct.pack("<III", 20, 0xF3D1C4DF, 0))},
            "locked by a password",
        ),
        ({"PowerPoint Document": made.atom(0x2F14, bytes(9))}, "locked by a password"),
        ({"PowerPoint Document": MASTER}, "it holds no slides"),
    ],
)
def test_a_presentation_that_cannot_be_read_says_why(
    look: Look, streams: dict[str, bytes], note: str
) -> None:
    """Its type is known all the same."""
    facts = look(compound(streams))
    assert (facts.mime_type, facts.text, facts.note) == (PPT, None, note)


# --- Damage and harm ------------------------------------------------------------------------------

LEGACY = ("chairs.doc", "chairs.xls", "chairs.ppt", "by-word.doc", "by-xlwt.xls")


@pytest.mark.parametrize("name", LEGACY)
def test_cut_at_any_byte_a_file_gives_an_answer(look: Look, name: str) -> None:
    """Or a note; never another error."""
    whole = (FILES / name).read_bytes()
    assert look.survives(whole)
    for length in range(0, len(whole), max(len(whole) // 150, 97)):
        look.survives(whole[:length])


@pytest.mark.slow
@pytest.mark.parametrize("name", LEGACY)
def test_with_any_sector_of_noise_a_file_gives_an_answer(look: Look, name: str) -> None:
    """Tables, directory, streams: each in its turn is something else, all ones, or all zeros."""
    whole = (FILES / name).read_bytes()
    chance = random.Random(name)
    sectors = range(0, min(len(whole), 60 * 512), 512)
    for at in sectors:
        for noise in (chance.randbytes(512), b"\xff" * 512, bytes(512)):
            look.survives(whole[:at] + noise + whole[at + 512 :])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(LEGACY),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        max_size=20,
    ),
)
def test_whatever_bytes_are_changed_a_file_gives_an_answer(
    look: Look, name: str, changes: list[tuple[float, bytes]]
) -> None:
    """Lengths, counts, places and marks among them."""
    body = bytearray((FILES / name).read_bytes())
    # Most of the presentation is a picture of it, which nobody reads.
    end = min(len(body), 30_000)
    for place, some in changes:
        at = int(place * end)
        body[at : at + len(some)] = some
    look.survives(bytes(body))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["WordDocument", "Workbook", "PowerPoint Document"]),
    changes=st.lists(
        st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=6)), max_size=12
    ),
)
def test_streams_of_nonsense_give_an_answer(
    look: Look, kind: str, changes: list[tuple[int, bytes]]
) -> None:
    """Their container is whole, so that the readers of all three see them."""
    streams = {
        "WordDocument": made.word("a\x13b\x14c\x15", b"bytes", lengths=[8, 3]),
        "Workbook": {"Workbook": WORKBOOKS["a book"]},
        "PowerPoint Document": WORKBOOKS["a show"],
    }[kind]
    for name in streams:
        body = bytearray(streams[name])
        for at, some in changes:
            at %= len(body)
            body[at : at + len(some)] = some
        streams = streams | {name: bytes(body)}
    look.survives(compound(streams))


def put(body: bytes, at: int, *numbers: int) -> bytes:
    """Write numbers of four bytes over a file."""
    changed = bytearray(body)
    struct.pack_into(f"<{len(numbers)}I", changed, at, *numbers)
    return bytes(changed)


BOOK = compound({"Workbook": WORKBOOKS["a book"]})
N_SECTORS = len(BOOK) // 512 - 1
LOOP = struct.pack("<128I", *([5] * 127), N_SECTORS)
"""One more sector, which names 127 parts of the table and itself as the next."""
DIRECTORY_AT = 512 * 2

CHAINS = {
    "every sector follows itself": put(BOOK, 512, *range(128)),
    "all sectors in a ring": put(BOOK, 512, *((n + 1) % N_SECTORS for n in range(128))),
    "a table of 4,000 million parts": put(
        put(BOOK, 44, 0xFFFFFFFF), 68, N_SECTORS, 0xFFFFFFFF) + LOOP,
    "a table that names itself, cut": put(put(BOOK, 44, 0xFFFFFFFF), 68, N_SECTORS, 1) + put(
        bytes(4), 0, N_SECTORS),
    "a directory that is nowhere": put(BOOK, 48, 0x7FFFFFFF),
    "names in a circle": put(BOOK, DIRECTORY_AT + 128 + 68, 1, 1, 1),
    "a stream of 4 GB": put(BOOK, DIRECTORY_AT + 128 + 120, 0xFFFFFFFF),
    "a small stream without a table": put(BOOK, DIRECTORY_AT + 128 + 120, 100),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_chains_that_lie_end(look: Look, name: str) -> None:
    """They are as long as the file has sectors, at most."""
    look.survives(CHAINS[name])


@pytest.mark.parametrize("shift", [0, 1, 8, 10, 31, 0xFFFF])
def test_sectors_of_an_impossible_size_are_refused(look: Look, shift: int) -> None:
    """There are two sizes."""
    body = BOOK[:30] + struct.pack("<H", shift) + BOOK[32:]
    with pytest.raises(NotReadable, match="impossible size"):
        look(body)


N_MANY = 400_000
LARGE = {
    "pieces that all hold the whole": made.word(
        "a" * 100_000,
        lengths=[0x7FFFFFFF],
        clx=b"\x02" + struct.pack("<I", 12 * 50_000 + 4)
        + struct.pack("<50001I", *(n * 40_000 for n in range(50_001)))
        + struct.pack("<HIH", 0, 2048, 0) * 50_000,
    ),
    "pieces that hold nothing": made.word(
        "\x13", lengths=[0x7FFFFFFF] * 8,
        clx=b"\x02" + struct.pack("<I", 12 * N_MANY + 4) + bytes(12 * N_MANY + 4),
    ),
    "strings without end": {
        "Workbook": made.workbook({"S": b""}, record(0xFC, struct.pack("<II", 1, 0xFFFFFFFF))
                                  + record(0x3C, bytes(8000)) * 1000),
    },
    "two thousand sheets that are one": {
        "Workbook": made.begin(5) + record(0x85, struct.pack("<IBBBB", 0, 0, 0, 1, 0) + b"S") * 4000
        + record(0x0A) + record(0x01) * 500_000,
    },
    "records in records": {
        "PowerPoint Document": struct.pack("<HHI", 0x0F, 0x03EE, 0xFFFFFFFF) * N_MANY,
    },
    "a million slides that are one": made.presentation(
        made.listed(2, 256) * 100_000, b"", {2: made.slide(made.atom(0, bytes(0)) * 50_000)}
    ),
    "edits in a circle": {
        "PowerPoint Document": made.atom(0x0FF5, struct.pack("<IIIII", 0, 0, 0, 0, 1)),
        "Current User": made.atom(0x0FF6, struct.pack("<III", 20, 0, 0)),
    },
}  # fmt: skip
"""Files of megabytes that ask for gigabytes, or for hours."""


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(LARGE))
async def test_what_asks_for_gigabytes_or_hours_gets_neither(desk: Desk, name: str) -> None:
    """An answer in the time of the test, from a process that grew little."""
    body = compound(LARGE[name])
    facts = await desk.examine(body, name)
    assert facts.mime_type in (DOC, XLS, PPT)
    assert memory_of(desk.examiner.processes()) < 256 << 20


def test_a_reader_stops_when_it_has_enough(look: Look) -> None:
    """The text is cut, the number of sheets and slides is known."""
    for name, pages in (("chairs.doc", None), ("chairs.xls", 2), ("chairs.ppt", 3)):
        facts = look((FILES / name).read_bytes(), max_chars=30)
        assert facts.text
        assert len(facts.text) <= 30
        assert (facts.is_text_cut, facts.pages) == (True, pages)
