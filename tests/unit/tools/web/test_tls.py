"""The name of a page is what its certificate is checked against, wherever the socket goes."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isorun.tools.web.fetch import fetch
from isorun.tools.web.rules import shared_context
from tests.unit.tools.web.serving import guarded, http, names, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A file with a key and a certificate that it signed itself, for site.test."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    path.write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_the_name_is_kept_while_the_socket_goes_to_the_judged_address(certificate) -> None:
    """SNI, the certificate's name and the Host header are the URL's, although the connection is to an address."""
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with serving({"/": http("ok", "text/plain")}, tls=server_side(certificate)) as served:
        rules = guarded(served, resolve=names({"site.test": ["93.184.216.34"]}), context=lambda: trusted)
        (row,) = await fetch("https://site.test/", rules=rules)
        assert (row["status"], row["text"]) == ("success", "ok")
        assert (served.sni, served.asked[0].headers["host"]) == (["site.test"], "site.test")


async def test_a_certificate_of_another_name_is_an_error(certificate) -> None:
    """Nothing is sent to who cannot show the name, and it is not told as private or empty."""
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with serving({"/": http("ok", "text/plain")}, tls=server_side(certificate)) as served:
        rules = guarded(served, resolve=names({"other.test": ["93.184.216.34"]}), context=lambda: trusted)
        (row,) = await fetch("https://other.test/", rules=rules)
        assert (row["status"], served.asked) == ("http_error", [])
        assert "certificate" in row["detail"]


async def test_a_certificate_that_nobody_signed_is_an_error(certificate) -> None:
    """The context of a fetch that names none checks against the system's authorities."""
    async with serving({"/": http("ok", "text/plain")}, tls=server_side(certificate)) as served:
        rules = guarded(served, resolve=names({"site.test": ["93.184.216.34"]}))
        (row,) = await fetch("https://site.test/", rules=rules)
        assert (row["status"], served.asked) == ("http_error", [])
        assert "certificate" in row["detail"]


def test_one_context_is_shared_and_it_checks() -> None:
    """Making one costs more than a small page does."""
    assert shared_context() is shared_context()
    assert (shared_context().verify_mode, shared_context().check_hostname) == (ssl.CERT_REQUIRED, True)
