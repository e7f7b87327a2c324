"""The start page and the set-password page, as a browser without script sees them."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from agentsight.server.dashboard.reference import describe_api
from agentsight.server.dashboard.snippet import snippet
from tests.cli.commands import clean_environment, run_command
from tests.server.dashboard.conftest import Site


def _form(*passwords: str) -> dict[str, str]:
    return {"password": passwords[0], "password_again": passwords[-1]}


def test_the_start_page_says_what_to_do_next(site: Site) -> None:
    """The install line, the lines that track and fetch, the API's description."""
    page = httpx2.get(f"{site.url}/")
    text = html.unescape(page.text)
    assert page.status_code == 200
    assert f"pip install {site.url}/sdk/agentsight-open/" in text
    assert snippet(site.url) in text
    assert 'href="docs"' in text
    assert 'href="openapi.json"' in text
    assert f"keys create --agent default --role write --data {site.data}" in text
    assert "Pages to sign in and read conversations come with a later version" in text


def test_the_lines_to_run_need_no_scrolling() -> None:
    """The column takes 85 letters of them beside a scrollbar, in most fonts."""
    assert max(map(len, snippet("http://127.0.0.1:8000").splitlines())) <= 80


def test_a_body_is_described_by_what_is_sent_in_it(site: Site) -> None:
    """Not by what the answer's field of the same name is; and with the objects in it."""
    document = httpx2.get(f"{site.url}/openapi.json").json()
    bodies = {
        (operation.path, body.kind): {field.name: field for field in body.fields}
        for group in describe_api(document)
        for operation in group.operations
        for body in operation.bodies
    }
    batch = bodies["/api/v1/batch/", "application/json"]
    assert "What became of" not in batch["items"].text
    assert batch["items[].type"].is_required
    assert {"data", "part", "upload", "item_key", "filename"} <= {
        name.removeprefix("items[].attachments[].") for name in batch
    }
    for fields in bodies.values():
        for name, one in fields.items():
            assert one.text, name
            assert "caller" not in one.text
            assert "sender's name" not in one.text
    page = html.unescape(httpx2.get(f"{site.url}/docs").text)
    assert "items[].attachments[].upload" in page


@pytest.mark.parametrize("path", ["/app", "/app/"])
def test_where_people_look_for_a_dashboard_a_page_says_when(site: Site, path: str) -> None:
    """Not an error in JSON; and its links lead back to the start."""
    page = httpx2.get(f"{site.url}{path}")
    assert page.status_code == 200
    assert "come with a later version" in page.text
    for link in re.findall(r'href="((?!#|data:)[^"]*)"', page.text):
        assert httpx2.get(str(page.url.join(html.unescape(link)))).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/sdk/", "/app/", "/app/style.css", "/app/set-password/nonsense"]
)
def test_a_text_names_its_charset_once(site: Site, path: str) -> None:
    """`text/html; charset=utf-8`, and not again."""
    kind = httpx2.get(f"{site.url}{path}").headers["content-type"]
    assert kind in ("text/html; charset=utf-8", "text/css; charset=utf-8")


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/sdk/", "/sdk/agentsight-open/"],
)
def test_head_is_answered_like_get_without_a_body(site: Site, path: str) -> None:
    """Uptime checks ask so; the connection stays in step, as the next answer shows."""
    with httpx2.Client() as client:
        got = client.get(f"{site.url}{path}")
        asked = client.head(f"{site.url}{path}")
        assert (asked.status_code, asked.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert asked.headers[name] == got.headers[name]
        assert client.get(f"{site.url}{path}").content == got.content
        assert client.head(f"{site.url}/nowhere").status_code == 404


def test_the_start_page_never_shows_a_key(site: Site) -> None:
    """Whoever opens it learns nothing that opens anything."""
    text = httpx2.get(f"{site.url}/").text
    assert site.key not in text
    assert re.search(r"ags_[0-9a-f]{32}", text) is None
    assert "set-password/" not in text


@pytest.mark.parametrize("path", ["/", "/app/", "/app/set-password/nonsense"])
def test_pages_have_no_script_and_nothing_from_elsewhere(site: Site, path: str) -> None:
    """A strict policy, and nothing in the page that would need a wider one."""
    page = httpx2.get(f"{site.url}{path}")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in policy
    assert "script" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


def test_every_link_of_the_start_page_works(site: Site) -> None:
    """No dead end on the first page that anybody sees."""
    text = httpx2.get(f"{site.url}/").text
    links = [
        link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith(("#", "data:"))
    ]
    assert len(links) >= 5
    for link in links:
        assert httpx2.get(f"{site.url}/{link}").status_code == 200, link


def test_the_style_sheet_is_kept_by_browsers(site: Site) -> None:
    """Its address changes with its content, so it may be kept for ever."""
    text = httpx2.get(f"{site.url}/").text
    found = re.search(r'href="(app/style\.css\?v=\w+)"', text)
    assert found is not None
    sheet = httpx2.get(f"{site.url}/{found[1]}")
    assert "immutable" in sheet.headers["cache-control"]
    assert "prefers-color-scheme: dark" in sheet.text


def test_the_lines_on_the_start_page_run_as_they_stand(site: Site, tmp_path: Path) -> None:
    """With a key in them they track and fetch, and the printed link gives the file."""
    run = subprocess.run(
        [sys.executable, "-c", snippet(site.url, site.key)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    name, mime_type, url = run.stdout.split()
    assert (name, mime_type) == ("hello.txt", "text/plain")
    assert httpx2.get(url).text == "A file for my bot."
    assert len(snippet(site.url).splitlines()) <= 15


@pytest.mark.slow
def test_a_link_sets_a_password_once(site: Site) -> None:
    """Form, password, success; then the link is dead, for looking and for sending."""
    url = site.new_link("once@example.com")
    form = httpx2.get(url)
    assert form.status_code == 200
    assert "once@example.com" in form.text
    assert httpx2.get(url).status_code == 200
    done = httpx2.post(url, data=_form("correct horse"))
    assert done.status_code == 200
    assert "no dashboard yet" in done.text
    assert httpx2.get(url).status_code == 410
    assert httpx2.post(url, data=_form("another horse")).status_code == 410
    listed = run_command("users", "list", "--data", str(site.data)).stdout
    assert re.search(r"once@example.com +viewer +- +set", listed)


def test_every_field_has_a_label(site: Site) -> None:
    """Each visible input is named, and tells password managers what it is for."""
    text = httpx2.get(site.new_link("label@example.com")).text
    for name in ("password", "password_again"):
        assert f'<label for="{name}">' in text
        assert f'id="{name}"' in text
    assert text.count('autocomplete="new-password"') == 2


@pytest.mark.parametrize(
    ("passwords", "said"),
    [
        (("short",), "at least 10"),
        (("aaaaaaaaaaaa",), "different characters"),
        (("correct horse", "correct house"), "differ"),
        (("",), "required"),
        (("x" * 2000,), "at most 1000"),
    ],
)
def test_a_poor_password_is_told_on_the_page(
    site: Site, passwords: tuple[str, ...], said: str
) -> None:
    """The answer is the form again with the reason, and the link still works."""
    email = f"poor-{abs(hash(passwords))}@example.com"
    url = site.new_link(email)
    answer = httpx2.post(url, data=_form(*passwords))
    assert answer.status_code == 400
    assert said in html.unescape(answer.text)
    assert 'role="alert"' in answer.text
    assert all(password not in answer.text for password in passwords if len(password) > 5)
    assert httpx2.get(url).status_code == 200


def test_a_form_from_another_site_is_refused(site: Site) -> None:
    """A browser says where a form comes from; the link is not used up by it."""
    url = site.new_link("csrf@example.com")
    for origin in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": origin}
        answer = httpx2.post(url, data=_form("correct horse"), headers=headers)
        assert answer.status_code == 403
    assert httpx2.get(url).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x" * 20_000, 413), (b"\xff\xfe", 400), (b"&".join(b"a=%d" % n for n in range(50)), 400)],
)
def test_a_hostile_form_is_refused(site: Site, body: bytes, status: int) -> None:
    """Too long, not text, or too many fields: a clear answer, never a 500."""
    url = site.new_link(f"hostile-{len(body)}@example.com")
    assert httpx2.post(url, content=body).status_code == status


@pytest.mark.parametrize("token", ["x", "a" * 5000, "%00", "%F0%9F%92%A9", "..%2f..", "'--"])
def test_a_link_that_never_was_is_one_page(site: Site, token: str) -> None:
    """Whatever is in its place: the same words, nothing told."""
    answer = httpx2.get(f"{site.url}/app/set-password/{token}")
    assert answer.status_code in (404, 410)
    assert "Traceback" not in answer.text
