"""Documents of every format give their text; what cannot be read gets the error that says why."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import docx
import pypdf
import pytest

from ragkube_api import errors
from ragkube_api.text import docx_format, parsing, pdf_format
from ragkube_api.text.parsing import CSV, DOCX, HTML, JSON, MARKDOWN, PDF, PLAIN, TSV, parse

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def word_file(build: Any = None) -> bytes:
    document = docx.Document()
    if build:
        build(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pdf_file(
    text: str | None = "The pump runs at 40 bar.", *, password: str | None = None, title: str = ""
) -> bytes:
    """A one-page PDF written by hand, so that the reader is not tested against its own writer."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Title ({title}) >>".encode(),
    ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    table = out.tell()
    out.write(b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets))
    out.write(b"trailer << /Size 7 /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF\n" % table)
    if password is None:
        return out.getvalue()
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(out.getvalue()))
    writer.encrypt(password, algorithm="AES-256")
    locked = io.BytesIO()
    writer.write(locked)
    return locked.getvalue()


@pytest.mark.proves("I1")
@pytest.mark.parametrize(
    ("name", "part", "title"),
    [
        ("txt.txt", "Quod equidem non reprehendo;", None),
        ("md.md", "## Overview", "Markdown: Syntax"),
        ("html.html", "New feature deployed: Enhanced search", "Product Dashboard"),
        ("json.json", "dashboard.metrics.revenue.current: 45678.9", "Product Performance Dashboard"),
        ("csv.csv", "Date: 2024-01-16; Customer ID: C1003; Product: External SSD 1TB; Quantity: 3", None),
        ("tsv.tsv", "Region: Africa; Year: 2024; Quarter: Q1; Sales: 320000", None),
        ("pdf.pdf", "Dummy PDF file", None),
        (
            "docx.docx",
            "- Data Layer: Manages data storage",
            "Technical Documentation: System Architecture Overview",
        ),
        ("rst.rst", "3. Somé UTF-8°", None),
    ],
)
def test_real_files_are_read(test_data: Path, name: str, part: str, title: str | None) -> None:
    body = (test_data / "formats" / name).read_bytes()
    extracted = parse(body, "application/octet-stream", filename=name)
    assert part in extracted.text
    assert extracted.title == title


@pytest.mark.proves("I7")
@pytest.mark.parametrize("name", ["eml.eml", "epub.epub", "pptx.pptx", "xlsx.xlsx"])
def test_real_files_of_other_formats_are_refused_with_the_list_of_what_is_read(
    test_data: Path, name: str
) -> None:
    body = (test_data / "formats" / name).read_bytes()
    with pytest.raises(
        errors.UnsupportedDocumentError, match="send one of: application/json, application/pdf"
    ):
        parse(body, "application/octet-stream", filename=name)


@pytest.mark.proves("I7")
@pytest.mark.parametrize(
    ("body", "content_type", "error", "sentence"),
    [
        (b"", PLAIN, errors.EmptyDocumentError, "the document is empty"),
        (b" \n\t ", MARKDOWN, errors.EmptyDocumentError, "the document is empty"),
        (b"{}", JSON, errors.EmptyDocumentError, "the document has no text in it"),
        (
            b"<html><script>x()</script></html>",
            HTML,
            errors.EmptyDocumentError,
            "the document has no text in it",
        ),
        (b"x", "image/png", errors.UnsupportedDocumentError, "documents of type image/png are not read"),
        (b"x", "", errors.UnsupportedDocumentError, "its name does not tell it"),
        (PNG, PLAIN, errors.MislabelledDocumentError, "is said to be plain text but is a PNG image"),
        (PNG, MARKDOWN, errors.MislabelledDocumentError, "is said to be Markdown but is a PNG image"),
        (PNG, HTML, errors.MislabelledDocumentError, "is said to be HTML but is a PNG image"),
        (b"%PDF-1.7 ...", PLAIN, errors.MislabelledDocumentError, "but is a PDF document"),
        (b"a\x00b", PLAIN, errors.MislabelledDocumentError, "but is binary data"),
        (
            b"<!DOCTYPE html><p>x",
            PDF,
            errors.MislabelledDocumentError,
            "is said to be PDF but is an HTML page",
        ),
        (b"just words", PDF, errors.MislabelledDocumentError, "is said to be PDF but is plain text"),
        (b"<html>x", JSON, errors.MislabelledDocumentError, "is said to be JSON but is an HTML page"),
        (b"<html>x", CSV, errors.MislabelledDocumentError, "is said to be CSV but is an HTML page"),
        (b"{\\rtf1 x}", DOCX, errors.MislabelledDocumentError, "but is an RTF document"),
        (
            b"caf\xe9",
            PLAIN,
            errors.BrokenDocumentError,
            "byte 4 of the document is not valid UTF-8; name its charset",
        ),
        (
            b"x",
            "text/plain; charset=klingon",
            errors.BrokenDocumentError,
            "the charset 'klingon' is not known",
        ),
        (b'{"a": 1,}', JSON, errors.BrokenDocumentError, "not valid JSON: .* line 1 column"),
        (b"[" * 100_000, JSON, errors.BrokenDocumentError, "nested too deeply"),
        (b"%PDF-1.7\nrubbish", PDF, errors.BrokenDocumentError, "the document is a damaged PDF"),
        (pdf_file()[:300], PDF, errors.BrokenDocumentError, "the document is a damaged PDF"),
        (pdf_file(None), PDF, errors.EmptyDocumentError, "scanned pages are not recognised"),
        (pdf_file(password="secret"), PDF, errors.EncryptedDocumentError, "the PDF asks for a password"),
        (b"PK\x03\x04 rubbish", DOCX, errors.BrokenDocumentError, "the document is a damaged Word file"),
        (word_file()[:2000], DOCX, errors.BrokenDocumentError, "the document is a damaged Word file"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            DOCX,
            errors.EncryptedDocumentError,
            "the Word file asks for a password",
        ),
    ],
)
def test_each_kind_of_trouble_has_its_error(
    body: bytes, content_type: str, error: type[errors.DocumentError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        parse(body, content_type)


@pytest.mark.proves("I7")
def test_an_archive_that_is_no_word_file_says_what_it_is() -> None:
    for inner, kind in {"x.txt": "a ZIP archive", "xl/workbook.xml": "an Excel workbook"}.items():
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(inner, "x")
        with pytest.raises(errors.MislabelledDocumentError, match=f"but is {kind}"):
            parse(out.getvalue(), DOCX)


@pytest.mark.proves("I7")
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx_format, "MAX_UNPACKED", 1_000_000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<w>" + b" " * 2_000_000)
    assert len(out.getvalue()) < 10_000
    with pytest.raises(errors.DocumentTooLargeError, match="unpacks to more than"):
        parse(out.getvalue(), DOCX)


@pytest.mark.proves("I7")
def test_the_pages_and_the_text_of_a_pdf_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_format, "MAX_CHARACTERS", 5)
    with pytest.raises(errors.DocumentTooLargeError, match="more than 5 characters"):
        parse(pdf_file(), PDF)
    monkeypatch.setattr(pdf_format, "MAX_PAGES", 0)
    with pytest.raises(errors.DocumentTooLargeError, match="1 pages; at most 0"):
        parse(pdf_file(), PDF)


@pytest.mark.proves("I1")
def test_a_pdf_gives_its_text_and_its_own_title() -> None:
    extracted = parse(pdf_file(title="Pump handbook"), PDF)
    assert (extracted.text, extracted.title) == ("The pump runs at 40 bar.", "Pump handbook")
    assert parse(pdf_file(title="Microsoft Word - x.doc"), PDF).title is None


@pytest.mark.proves("I1")
def test_a_pdf_that_only_restricts_printing_is_read() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_file()))
    writer.encrypt("", "owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    assert parse(out.getvalue(), PDF).text == "The pump runs at 40 bar."


@pytest.mark.proves("I1")
def test_a_word_file_keeps_headings_lists_and_tables() -> None:
    def build(document: Any) -> None:
        document.add_heading("Pumps", 0)
        document.add_heading("Limits", 1)
        document.add_paragraph("At most 40 bar.")
        document.add_paragraph("no sand", style="List Bullet")
        table = document.add_table(rows=2, cols=2)
        for cell, text in zip(
            [c for row in table.rows for c in row.cells], ["Type", "Bar", "P1", "40"], strict=True
        ):
            cell.text = text

    extracted = parse(word_file(build), DOCX)
    assert extracted.title == "Pumps"
    assert extracted.text == (
        "# Pumps\n\n# Limits\n\nAt most 40 bar.\n\n- no sand\n\n| Type | Bar |\n| --- | --- |\n| P1 | 40 |"
    )


@pytest.mark.proves("I1")
def test_a_page_keeps_headings_lists_tables_and_code_but_no_navigation() -> None:
    page = (
        "<html><head><title> Pump &amp; valve </title></head><body><nav>Home</nav><h2>Limits</h2><p>At most"
        " <b>40</b> bar.<br>Really.</p><ul><li>no sand</li><li>no salt</li></ul><table><tr><th>Type</th><th>Bar</th>"
        "</tr><tr><td>P1</td><td>40</td></tr></table><pre>a  = 1\n# b</pre><script>alert(1)</script></body></html>"
    )
    extracted = parse(page.encode(), HTML)
    assert extracted.title == "Pump & valve"
    assert extracted.text == (
        "## Limits\n\nAt most 40 bar.\nReally.\n\n- no sand\n- no salt\n\nType | Bar\nP1 | 40\n\n```\na  = 1\n# b\n```"
    )


@pytest.mark.proves("I1")
@pytest.mark.parametrize("charset", ["windows-1252", "utf-8", "utf-16"])
def test_a_page_is_read_in_the_charset_it_names(charset: str) -> None:
    page = f'<html><head><meta charset="{charset}"></head><body>Größe</body></html>'
    assert parse(page.encode(charset), HTML).text == "Größe"


def test_a_very_deep_page_is_read() -> None:
    assert parse(b"<div>" * 1_000 + b"deep", HTML).text == "deep"
    with pytest.raises(errors.BrokenDocumentError, match="nested too deeply"):
        parse(b"<div>" * 50_000 + b"deep", HTML)


@pytest.mark.proves("I1")
def test_the_charset_of_the_content_type_is_used() -> None:
    assert parse("Größe".encode("latin-1"), "text/plain; charset=ISO-8859-1").text == "Größe"
    assert parse("Größe".encode("utf-16"), PLAIN).text == "Größe"
    assert parse(b"\xef\xbb\xbfhello", "text/plain; charset=utf-8").text == "hello"


def test_stored_text_has_one_form() -> None:
    assert parse("a\r\nb\rc\x0cd\x07e\u0301".encode(), PLAIN).text == "a\nb\nc\nd\u00e9"[:7] + "\u00e9"
    assert parse(json.dumps({"a": "\ud800x"}).encode(), JSON).text == "a: \ufffdx"


@pytest.mark.proves("I1")
def test_records_of_a_json_list_are_set_apart() -> None:
    body = json.dumps({"title": "Pumps", "items": [{"name": "P1", "bar": 40}, {"name": "P2", "ok": True}]})
    extracted = parse(body.encode(), JSON)
    assert extracted.title == "Pumps"
    assert extracted.text == "title: Pumps\nitems.name: P1\nitems.bar: 40\n\nitems.name: P2\nitems.ok: true\n"


@pytest.mark.proves("I1")
def test_every_csv_row_carries_the_names_of_its_columns() -> None:
    assert (
        parse(b'name;bar\n"P;1";40\nP2;\nP3;1;extra\n', CSV).text
        == "name: P;1; bar: 40\nname: P2\nname: P3; bar: 1; extra"
    )
    assert parse(b"a\tb\n1\t2", TSV).text == "a: 1; b: 2"
    assert parse(b"only,a,header", CSV).text == "only | a | header"


@pytest.mark.proves("I1")
@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"---\ntitle: 'Front'\n---\n# Head\n", "Front"),
        (b"text\n\n## Head `x` [y](z) ##\n", "Head x y"),
        (b"Setext\n======\n", "Setext"),
        (b"```\n# no\n```\ntext", None),
    ],
)
def test_the_title_of_markdown(body: bytes, title: str | None) -> None:
    assert parse(body, "text/markdown; charset=utf-8").title == title


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [("a/b.MD", MARKDOWN), ("x.htm", HTML), ("x.pdf", PDF), ("x.docx", DOCX), ("x.bin", None), ("md", None)],
)
def test_types_by_file_name(filename: str, content_type: str | None) -> None:
    assert parsing.content_type_for(filename) == content_type


def test_aliases_become_one_type() -> None:
    assert parsing.canonical_type("text/x-markdown; charset=utf-8") == MARKDOWN
    assert parsing.canonical_type("application/xhtml+xml") == HTML
