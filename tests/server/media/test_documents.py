"""The text of documents: complete, in order, mended, cut where it is too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentsight.server.media import Examiner
from tests.server.media import samples
from tests.server.media.conftest import FILES, Desk
from tests.server.media.samples import paragraph

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "start", "pages"),
    [
        ("hostile.html", "page\n\nhello", None),
        ("hostile.svg", "<svg xmlns=", None),
        ("note.txt", "Grüße aus Köln — naïve café, 日本語, emoji ☕\nOrder 45820", None),
        ("orders.csv", "order_id,item,quantity,price\n45820,Mocha,1,4.50\n", None),
        ("policy.md", "# Refund policy\n\nRefunds are made within", None),
        ("sample-scan.pdf", "sindresorhus/le-type\nTest document made", 1),
        ("sample.docx", "Recently voted “Largest Upside Potential” by a panel", None),
        ("sample.odt", "This is a simple test document to demonstrate the Docu", None),
        ("sample.pdf", "Adobe Acrobat PDF Files\nAdobe® Portable Document Format", 1),
        ("sample.pptx", "Unicorns!", 1),
        ("sample.vcf", "BEGIN:VCARD\nVERSION:3.0\nN:Gump;Forrest", None),
        ("sample.xlsx", "Sheet1\n\nSheet2\n\nSheet3", 3),
    ],
)
async def test_real_documents_have_their_text(
    desk: Desk, name: str, start: str, pages: int | None
) -> None:
    """What people send can be searched and previewed."""
    facts = await desk.examine((FILES / name).read_bytes(), name)
    assert facts.text
    assert facts.text.startswith(start)
    assert (facts.pages, facts.is_text_cut, facts.note) == (pages, False, None)
    assert facts.has_preview


async def test_a_word_document_has_everything_that_is_read_in_it(desk: Desk) -> None:
    """Runs are joined, tables are rows, headers and notes follow; deleted text does not."""
    body = samples.docx(
        paragraph("Grüße")
        + "<w:p><w:r><w:t>Split</w:t></w:r><w:r><w:t>Word</w:t><w:tab/><w:t>Tab</w:t></w:r></w:p>"
        + f"<w:tbl><w:tr><w:tc>{paragraph('One')}</w:tc><w:tc>{paragraph('Two')}</w:tc></w:tr>"
        + "</w:tbl><w:p><w:del><w:r><w:delText>Deleted</w:delText></w:r></w:del></w:p>"
        + '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/'
        + f'2006"><mc:Choice>{paragraph("Box")}</mc:Choice><mc:Fallback>{paragraph("Box")}'
        + "</mc:Fallback></mc:AlternateContent>",
        header1=paragraph("Head"),
        footnotes=paragraph("Foot"),
    )
    text = (await desk.examine(body)).text
    assert text == "Grüße\nSplitWord\tTab\nOne \tTwo\n\nBox\n\nHead\n\nFoot"


def workbook() -> bytes:
    """Make a workbook of two sheets, the second first."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    ref = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    return samples.archive(
        {
            "xl/workbook.xml": f'<workbook {space} {ref}><sheets><sheet name="Ärger" r:id="rId2"/>'
            '<sheet name="Costs" r:id="rId1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": samples.relations(
                ("worksheet", "worksheets/sheet1.xml"), ("worksheet", "/xl/worksheets/sheet2.xml")
            ),
            "xl/sharedStrings.xml": f"<sst {space}><si><t>Ice</t></si><si><r><t>Two </t></r><r><t>"
            "runs</t></r><rPh><t>sound</t></rPh></si></sst>",
            "xl/styles.xml": f'<styleSheet {space}><numFmts><numFmt numFmtId="170" formatCode="'
            'yyyy\\-mm\\-dd hh:mm"/><numFmt numFmtId="171" formatCode="0.00 &quot;days&quot;"/>'
            '</numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/>'
            '<xf numFmtId="14"/><xf numFmtId="170"/><xf numFmtId="171"/></cellXfs></styleSheet>',
            "xl/worksheets/sheet1.xml": f'<worksheet {space}><sheetData><row><c t="s"><v>0</v></c>'
            '<c><f>1+1</f><v>2</v></c><c t="s"><v>1</v></c></row><row><c s="1"><v>46146</v></c>'
            '<c s="2"><v>46146.5</v></c><c s="3"><v>3</v></c></row></sheetData></worksheet>',
            "xl/worksheets/sheet2.xml": f'<worksheet {space}><sheetData><row><c t="inlineStr"><is>'
            '<t>Inline</t></is></c><c t="b"><v>1</v></c><c t="s"><v>99</v></c></row></sheetData>'
            "</worksheet>",
        }
    )


async def test_a_workbook_has_all_sheets_by_name_in_order_with_dates_as_dates(desk: Desk) -> None:
    """A row is a line, cells are parted by tabs, formulas show their value."""
    facts = await desk.examine(workbook(), "book.xlsx")
    assert facts.text == (
        "Ärger\nInline\tTRUE\n\nCosts\nIce\t2\tTwo runs\n2026-05-04\t2026-05-04 12:00:00\t3"
    )
    assert facts.pages == 2


async def test_slides_come_in_the_order_they_are_shown_with_their_notes(desk: Desk) -> None:
    """The order of a presentation is not that of its file names."""
    space = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
    ref = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    text = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'

    def slide(words: str) -> str:
        return f"<p:sld {space} {text}><a:p><a:r><a:t>{words}</a:t></a:r></a:p></p:sld>"

    body = samples.archive(
        {
            "ppt/presentation.xml": f'<p:presentation {space} {ref}><p:sldIdLst><p:sldId id="256"'
            ' r:id="rId2"/><p:sldId id="257" r:id="rId1"/></p:sldIdLst></p:presentation>',
            "ppt/_rels/presentation.xml.rels": samples.relations(
                ("slide", "slides/slide1.xml"), ("slide", "slides/slide2.xml")
            ),
            "ppt/slides/slide1.xml": slide("Last"),
            "ppt/slides/slide2.xml": slide("First"),
            "ppt/slides/_rels/slide2.xml.rels": samples.relations(
                ("notesSlide", "../notesSlides/notesSlide1.xml")
            ),
            "ppt/notesSlides/notesSlide1.xml": slide("Note"),
        }
    )
    facts = await desk.examine(body)
    assert (facts.text, facts.pages) == ("First\n\nNote\n\nLast", 2)


@pytest.mark.parametrize(
    ("kind", "body", "text", "pages"),
    [
        (
            "text",
            "<text:tracked-changes><text:p>Gone</text:p></text:tracked-changes><text:h>Top</text:h>"
            "<text:p>a<text:s text:c='3'/>b<text:tab/>c<text:line-break/><text:span>d</text:span>"
            "</text:p>",
            "Top\na   b\tc\nd",
            None,
        ),
        (
            "spreadsheet",
            "<table:table table:name='Costs'><table:table-row table:number-rows-repeated='1000000'>"
            "<table:table-cell table:number-columns-repeated='1000'><text:p>Ice</text:p>"
            "</table:table-cell></table:table-row></table:table><table:table table:name='Two'/>",
            "Costs\nIce\n\nTwo",
            2,
        ),
        (
            "presentation",
            "<draw:page><text:p>One</text:p></draw:page><draw:page><text:p>Two</text:p></draw:page>",
            "One\nTwo",
            2,
        ),
    ],
)
async def test_open_documents_have_their_text(
    desk: Desk, kind: str, body: str, text: str, pages: int | None
) -> None:
    """Cells that are repeated a million times are told once."""
    facts = await desk.examine(samples.open_document(kind, body))
    assert facts.text
    assert facts.text.replace(" \t", "") == text
    assert facts.pages == pages


async def test_an_e_book_has_its_chapters_in_order(desk: Desk) -> None:
    """The package document says which chapter comes first."""
    body = samples.archive(
        {
            "mimetype": "application/epub+zip",
            "book/a.opf": "<package><manifest><item id='1' href='z.xhtml'/><item id='2'"
            " href='a%20b.xhtml'/></manifest><spine><itemref idref='1'/><itemref idref='2'/>"
            "</spine></package>",
            "book/a b.xhtml": "<html><body><p>Second &amp; last</p></body></html>",
            "book/z.xhtml": "<html><style>.Hidden{}</style><body><p>First</p></body></html>",
        }
    )
    assert (await desk.examine(body)).text == "First\n\nSecond & last"


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        ("naïve;Größe\n".encode("utf-16"), "a.csv", "naïve;Größe"),
        ("\ufeffnaïve".encode("utf-16-be"), "a.csv", "naïve"),
        (b"\xef\xbb\xbfna\xc3\xafve\r\nb", "a.txt", "naïve\nb"),
        ("Grüße aus Köln, 5 € „so“".encode("cp1252"), "a.txt", "Grüße aus Köln, 5 € „so“"),
        (b'{"key": "value"}', "a.json", '{"key": "value"}'),
        (b"<?xml version='1.0'?><k>x</k>", "a.xml", "<?xml version='1.0'?><k>x</k>"),
        (b"BEGIN:VCALENDAR\nEND:VCALENDAR", "a.ics", "BEGIN:VCALENDAR\nEND:VCALENDAR"),
        (
            b"<html><title>T</title><script>var no</script><p>a <b>b</b>&amp;<br>c<td>d</html>",
            "a.html",
            "T\n\na b&\nc\td",
        ),
        (
            "<html><meta charset=iso-8859-2><p>Łódź".encode("iso-8859-2"),
            "a.html",
            "Łódź",
        ),
        (
            rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}{\*\generator X;}Gr\'fc\'dfe \u8364?\par "
            rb"\u-10179?\u-8704? \{b\}{\info{\author Y}}}",
            "a.rtf",
            "Grüße €\n😀 {b}",
        ),
        (
            b"From: a@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: text/plain;"
            b" charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nBody =C3=BC\n",
            "mail.eml",
            "From: a@example.com\nSubject: Grüße\n\nBody ü",
        ),
        (
            b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html"
            b"\n\n<p>Hello</p>\n--b\nContent-Disposition: attachment; filename=bill.pdf\n\n%PDF\n"
            b"--b--\n",
            "mail.eml",
            "Subject: x\n\nHello\n\nbill.pdf",
        ),
    ],
)
async def test_texts_are_read_in_the_encoding_and_form_they_have(
    desk: Desk, body: bytes, name: str, text: str
) -> None:
    """By mark, else UTF-8, else as Windows did; markup is left out where it is markup."""
    assert (await desk.examine(body, name)).text == text


async def test_a_pdf_has_the_text_of_all_pages_and_their_number(desk: Desk) -> None:
    """Every page counts, not the first alone."""
    facts = await desk.examine(samples.pdf("First words", "Second words"))
    assert (facts.text, facts.pages) == ("First words\n\nSecond words", 2)
    assert (facts.width, facts.height) == (None, None)


async def test_a_scanned_pdf_has_pages_and_no_text(desk: Desk) -> None:
    """Nothing is read out of pictures."""
    facts = await desk.examine(samples.pdf(""))
    assert (facts.text, facts.pages, facts.has_preview) == (None, 1, True)


async def test_an_empty_text_has_no_preview(desk: Desk) -> None:
    """Nothing but space is nothing to show."""
    facts = await desk.examine(b"   \n\n  ", "a.txt")
    assert (facts.text, facts.has_preview) == (None, False)


async def test_text_is_cut_at_the_limit_and_says_so(tmp_path: Path) -> None:
    """A log of a gigabyte costs no more than its beginning."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30, max_text_chars=100)
    desk = Desk(examiner, tmp_path)
    short = workbook()
    try:
        for body in (
            ("ü" * 5000).encode(),
            samples.docx(paragraph("word " * 50) * 20),
            samples.pdf(*["many words " * 5] * 20),
            b"<html><p>" + b"word " * 100,
            short,
        ):
            facts = await desk.examine(body, "file")
            assert facts.text
            assert len(facts.text) <= 100
            assert facts.is_text_cut == (body is not short)
    finally:
        await examiner.close()


async def test_text_holds_nothing_that_a_database_refuses(desk: Desk) -> None:
    """No NUL, no control characters, no half of a surrogate pair."""
    rtf = rb"{\rtf1 a\u-10240?b\u7?c\u0?d\par}"
    assert (await desk.examine(rtf)).text == "a\ufffdbcd"
    odd = samples.docx(paragraph("a\ufeffb&#x9;c"))
    assert (await desk.examine(odd)).text == "ab\tc"
