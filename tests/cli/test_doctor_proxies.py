"""`agentsight doctor` behind real proxies: set up as documented, and wrongly in every known way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxies.house import build_house, store_file
from tests.support.doctor import Doctor, visit
from tests.support.proxies import Certificate, make_certificate
from tests.support.server import LiveServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("doctor")]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Give the command."""
    return Doctor(monkeypatch, capsys)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make one certificate for all proxies of this module."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Run a server on SQLite."""
    with LiveServer(tmp_path) as running:
        yield running


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_a_healthy_instance_behind_a_proxy_is_well(
    doctor: Doctor, certificate: Certificate, kind: str
) -> None:
    """Our own configurations pass every check, and nothing is left to say."""
    with build_house(kind, certificate) as house:
        store_file(house, "c", "a.txt", "text/plain", b"a file of the doctor")
        report = visit(doctor, house)
    assert report.states() == {"ok"}, report.text
    assert report.code == 0
    checks = {one["check"] for one in report.findings}
    assert checks == {
        "settings", "database", "storage", "instance", "address", "clock", "same instance",
        "links", "scheme", "body limit", "ranges", "examiner", "sandbox",
        "background",
    }  # fmt: skip


def test_a_healthy_instance_where_nginx_sends_the_files_is_well(
    doctor: Doctor, certificate: Certificate
) -> None:
    """X-Accel-Redirect as documented keeps ranges and the headers that confine files."""
    with build_house("nginx", certificate, accel=True) as house:
        store_file(house, "c", "a.txt", "text/plain", b"a file of the doctor")
        report = visit(doctor, house)
    assert report.states() == {"ok"}, report.text


def test_a_certificate_that_is_not_trusted_is_said(
    doctor: Doctor, certificate: Certificate
) -> None:
    """What browsers and bots would refuse, the doctor refuses, and says how to mend it."""
    with build_house("nginx", certificate) as house:
        report = doctor("--database-url", house.server.database_url, "--url", house.base_url)
    said = report.of("address", "fail")
    assert "certificate is not trusted" in said
    assert "SSL_CERT_FILE" in said


def test_http_spoken_to_a_tls_port_and_the_reverse_are_said(
    doctor: Doctor, certificate: Certificate, server: LiveServer
) -> None:
    """A wrong scheme in the public URL ends in words, whichever way it is wrong."""
    data = ("--data", str(server.data_dir))
    tls = doctor(*data, "--url", server.base_url.replace("http:", "https:"))
    assert "no TLS is spoken there" in tls.of("address", "fail")
    with build_house("nginx", certificate) as house:
        plain = doctor(*data, "--url", house.base_url.replace("https:", "http:"))
    assert "400" in plain.of("address", "fail")


# --- Proxies set up wrongly -----------------------------------------------------------------------


def test_nginx_with_its_default_limit_is_named(doctor: Doctor, certificate: Certificate) -> None:
    """1 MB is what most installations fail by: the setting to change is said."""
    edits = [("    client_max_body_size 1100m;\n", "")]
    with build_house("nginx", certificate, edits=edits) as house:
        report = visit(doctor, house)
    said = report.of("body limit", "fail")
    assert report.code == 1
    assert "a body of 1.1 MiB: 413" in said
    assert "client_max_body_size 1100m" in said


def test_a_limit_between_the_sizes_is_found(doctor: Doctor, certificate: Certificate) -> None:
    """A limit above the default and below a phone's video is a limit too."""
    with build_house("nginx", certificate, edits=[("1100m", "20m")]) as house:
        report = visit(doctor, house)
    assert "a body of 30 MiB: 413" in report.of("body limit", "fail")


def test_a_proxy_that_is_not_trusted_gives_links_of_the_wrong_address(
    doctor: Doctor, certificate: Certificate
) -> None:
    """Neither public URL nor trusted proxy: links would begin with the server's own address."""
    settings = {"AGENTSIGHT_TRUSTED_PROXIES": ""}
    with build_house("nginx", certificate, public=False, settings=settings) as house:
        report = visit(doctor, house)
    said = report.of("links", "fail")
    assert "links begin with http://127.0.0.1:" in said
    assert f"Set AGENTSIGHT_PUBLIC_URL={house.base_url}" in said
    assert "AGENTSIGHT_TRUSTED_PROXIES=127.0.0.1" in said


def test_a_wrong_scheme_is_found(doctor: Doctor, certificate: Certificate) -> None:
    """A proxy that forgets X-Forwarded-Proto makes http links on an https page."""
    edits = [("    proxy_set_header X-Forwarded-Proto $scheme;\n", "")]
    with build_house("nginx", certificate, public=False, edits=edits) as house:
        store_file(house, "c", "a.txt", "text/plain", b"a")
        report = visit(doctor, house)
    assert f"links begin with {house.base_url.replace('https', 'http')}" in report.of(
        "links", "fail"
    )
    assert "X-Forwarded-Proto" in report.of("links", "fail")
    assert "browsers block them" in report.of("scheme", "fail")


def test_a_proxy_that_passes_forged_headers_on_is_found(
    doctor: Doctor, certificate: Certificate
) -> None:
    """Trusted, and yet repeating what a stranger says: links could begin with anything."""
    edits = [("    proxy_set_header X-Forwarded-Host $host;\n", "")]
    with build_house("nginx", certificate, public=False, edits=edits) as house:
        report = visit(doctor, house)
    assert "a client can choose what links begin with" in report.of("links", "fail")


def test_a_server_that_was_told_another_public_url_is_found(
    doctor: Doctor, certificate: Certificate
) -> None:
    """The settings of the running server count, not those of the doctor's shell."""
    settings = {"AGENTSIGHT_PUBLIC_URL": "https://old.example.com"}
    with build_house("nginx", certificate, settings=settings) as house:
        report = visit(doctor, house)
    said = report.of("links", "fail")
    assert "links begin with https://old.example.com" in said
    assert f"Set AGENTSIGHT_PUBLIC_URL={house.base_url} where the server runs" in said


def test_a_proxy_without_a_server_is_found(doctor: Doctor, certificate: Certificate) -> None:
    """503 of the proxy is told from 503 of the server."""
    with build_house("nginx", certificate) as house:
        house.server.stop()
        report = visit(doctor, house)
    assert "The proxy finds no server behind it" in report.of("address", "fail")
    assert "ranges" in {one["check"] for one in report.findings if one["state"] == "skip"}


def test_a_proxy_that_drops_ranges_is_found(doctor: Doctor, certificate: Certificate) -> None:
    """Without ranges, sound and video cannot be wound."""
    edits = [('proxy_set_header Forwarded "";', 'proxy_set_header Range "";')]
    with build_house("nginx", certificate, edits=edits) as house:
        store_file(house, "c", "a.txt", "text/plain", b"many bytes")
        report = visit(doctor, house)
    assert "ignores ranges" in report.of("ranges", "fail")


def test_x_accel_without_nginx_is_found(doctor: Doctor, certificate: Certificate) -> None:
    """The setting in front of anything but nginx gives empty files."""
    settings = {"AGENTSIGHT_X_ACCEL_REDIRECT": "/internal-files/"}
    with build_house("caddy", certificate, settings=settings) as house:
        store_file(house, "c", "a.txt", "text/plain", b"many bytes")
        report = visit(doctor, house)
    assert "AGENTSIGHT_X_ACCEL_REDIRECT is set, and no nginx sends them" in report.of(
        "ranges", "fail"
    )


def test_nginx_that_forgets_the_confining_headers_is_found(
    doctor: Doctor, certificate: Certificate
) -> None:
    """After X-Accel-Redirect nginx drops the policy: a hostile page would run."""
    policy = "        add_header Content-Security-Policy $upstream_http_content_security_policy;\n"
    with build_house("nginx", certificate, accel=True, edits=[(policy, "")]) as house:
        store_file(house, "c", "a.txt", "text/plain", b"many bytes")
        report = visit(doctor, house)
    assert "without content-security-policy" in report.of("file headers", "fail")


def test_files_that_nginx_may_not_read_are_found(doctor: Doctor, certificate: Certificate) -> None:
    """A wrong directory or wrong permissions show as nginx's own error page."""
    edits = [("location /internal-files/ {", "location /internal-files/ {\n deny all;")]
    with build_house("nginx", certificate, accel=True, edits=edits) as house:
        store_file(house, "c", "a.txt", "text/plain", b"many bytes")
        report = visit(doctor, house)
    said = report.of("ranges", "fail")
    assert "403" in said
    assert "nginx's workers must be able to read the files" in said
