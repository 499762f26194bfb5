"""TLS contexts of librdkafka's options, proven by handshakes. Run: pytest tests/edge/test_tls.py"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge.tls import ssl_context
from schemas.errors import ConfigError
from tests.edge.certificates import Authority, Identity

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def server(authority: Authority) -> Identity:
    return authority.issue("server")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Identity:
    return authority.issue("client")


def shake(
    server: Identity, authority: Authority, options: Mapping[str, str], tmp_path: Path, host: str = "127.0.0.1"
) -> ssl.SSLObject:
    """A handshake in memory with a server that demands a certificate of the authority; its end, which knows the client."""
    (tmp_path / "server.pem").write_text(server.certificate_pem() + server.key_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(cadata=authority.pem())
    context.verify_mode = ssl.CERT_REQUIRED
    there, here = (ssl.MemoryBIO() for _ in range(2))
    at_server = context.wrap_bio(there, here, server_side=True)
    at_client = ssl_context(options).wrap_bio(here, there, server_hostname=host)
    waiting = [at_client, at_server]
    for _ in range(8):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return at_server


def files(authority: Authority, client: Identity, at: Path) -> dict[str, str]:
    (at / "ca.pem").write_text(authority.pem())
    (at / "client.pem").write_text(client.certificate_pem())
    (at / "client.key").write_text(client.key_pem(PASSWORD))
    (at / "client.p12").write_bytes(client.keystore(PASSWORD))
    return {name: str(at / name) for name in ("ca.pem", "client.pem", "client.key", "client.p12")}


@pytest.mark.parametrize("how", ["files", "directory", "pem", "keystore"])
def test_who_we_are_and_whom_we_trust(
    authority: Authority, server: Identity, client: Identity, tmp_path: Path, how: str
) -> None:
    file = files(authority, client, tmp_path)
    ca, key = {"ssl.ca.location": file["ca.pem"]}, {"ssl.key.password": PASSWORD}
    match how:
        case "files":
            options = (
                ca | key | {"ssl.certificate.location": file["client.pem"], "ssl.key.location": file["client.key"]}
            )
        case "directory":
            by_hash = tmp_path / "authorities"
            by_hash.mkdir()
            (by_hash / f"{_subject_hash(authority)}.0").write_text(authority.pem())
            options = key | {"ssl.certificate.location": file["client.pem"], "ssl.key.location": file["client.key"]}
            options["ssl.ca.location"] = str(by_hash)
        case "pem":
            options = {"ssl.ca.pem": authority.pem(), "ssl.certificate.pem": client.certificate_pem()}
            options |= {"ssl.key.pem": client.key_pem(PASSWORD)} | key
        case _:
            options = ca | {"ssl.keystore.location": file["client.p12"], "ssl.keystore.password": PASSWORD}
    seen = shake(server, authority, options, tmp_path).getpeercert()
    assert seen is not None
    assert seen["subject"] == ((("commonName", "client"),),)


def _subject_hash(authority: Authority) -> str:
    """OpenSSL's name for it in a directory of authorities: the first bytes of a digest of the canonical subject."""
    import hashlib

    # SEQUENCE of the RDNs without the outer header, strings as lower-case UTF-8.
    (attribute,) = authority.certificate.subject
    text = str(attribute.value).lower().encode()
    value = b"\x06\x03\x55\x04\x03" + b"\x0c" + bytes([len(text)]) + text
    inner = b"\x30" + bytes([len(value)]) + value
    rdn = b"\x31" + bytes([len(inner)]) + inner
    return f"{int.from_bytes(hashlib.sha1(rdn, usedforsecurity=False).digest()[:4], 'little'):08x}"


def test_a_server_that_is_not_trusted(authority: Authority, server: Identity, client: Identity, tmp_path: Path) -> None:
    other = {"ssl.ca.pem": Authority().pem()}
    me = {"ssl.certificate.pem": client.certificate_pem(), "ssl.key.pem": client.key_pem()}
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, authority, other | me, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        shake(server, authority, {"ssl.ca.pem": authority.pem()} | me, tmp_path, host="elsewhere")
    lax = {"ssl.ca.pem": authority.pem(), "ssl.endpoint.identification.algorithm": "none"}
    shake(server, authority, lax | me, tmp_path, host="elsewhere")
    shake(server, authority, other | me | {"enable.ssl.certificate.verification": "false"}, tmp_path)


def test_a_revoked_server(authority: Authority, server: Identity, client: Identity, tmp_path: Path) -> None:
    options = {"ssl.ca.pem": authority.pem(), "ssl.certificate.pem": client.certificate_pem()}
    options["ssl.key.pem"] = client.key_pem()
    nobody = {"ssl.crl.location": str(authority.revoke(None, tmp_path / "none.crl"))}
    shake(server, authority, options | nobody, tmp_path)
    revoked = {"ssl.crl.location": str(authority.revoke(server, tmp_path / "server.crl"))}
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(server, authority, options | revoked, tmp_path)


def test_defaults_are_strict() -> None:
    context = ssl_context({})
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert {
        cipher["name"] for cipher in ssl_context({"ssl.cipher.suites": "ECDHE-RSA-AES128-GCM-SHA256"}).get_ciphers()
    } >= {"ECDHE-RSA-AES128-GCM-SHA256"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ssl.curves.list", "P-521"),
        ("ssl.sigalgs.list", "ECDSA+SHA256"),
        ("ssl.engine.location", "/engine.so"),
        ("ssl.providers", "fips"),
    ],
)
def test_what_python_cannot_be_told_is_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=option):
        ssl_context({option: value})


def test_files_that_are_not_what_they_should_be(authority: Authority, client: Identity, tmp_path: Path) -> None:
    file = files(authority, client, tmp_path)
    me = {"ssl.certificate.location": file["client.pem"], "ssl.key.location": file["client.key"]}
    wrong: list[dict[str, str]] = [
        {"ssl.ca.location": str(tmp_path / "missing.pem")},
        {"ssl.ca.location": file["client.key"]},
        {"ssl.ca.pem": "hunter3"},
        {"ssl.crl.location": str(tmp_path / "missing.crl")},
        {"ssl.cipher.suites": "hunter3"},
        me,
        me | {"ssl.key.password": "hunter3"},
        {"ssl.certificate.pem": client.certificate_pem(), "ssl.key.pem": "hunter3"},
        {"ssl.key.pem": client.key_pem()},
        {"ssl.keystore.location": file["client.p12"], "ssl.keystore.password": "hunter3"},
        {"ssl.keystore.location": file["client.pem"], "ssl.keystore.password": "hunter3"},
    ]
    for options in wrong:
        with pytest.raises(ConfigError, match="kafka_options") as caught:
            ssl_context(options)
        assert "hunter3" not in str(caught.value)
