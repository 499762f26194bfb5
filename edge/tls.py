"""librdkafka's `ssl.*` options for Python's ssl, which aiokafka uses. Nothing is left out silently."""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError, PrerequisiteError

#: Python's ssl cannot be told these.
_UNTRANSLATABLE = (
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.providers",
    "ssl.ca.certificate.stores",
    "ssl.certificate.verify_cb",
)
_FALSE = ("false", "f", "0")


def ssl_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """A context that trusts, shows and demands what librdkafka would with the same options.

    Raises:
        ConfigError: a file is missing or is not what it should be, or an option cannot be said to Python's ssl.
        PrerequisiteError: a PKCS#12 keystore needs the package `cryptography`.
    """
    for name in _UNTRANSLATABLE:
        if options.get(name):
            raise ConfigError(
                f"`kafka_options`: {name} cannot be given to aiokafka, which the sequence stage uses; leave it out, or do it in "
                "OpenSSL's own configuration file"
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # TLS 1.2 or later, names and certificates are checked
    doing = "TLS"
    try:
        doing = "ssl.ca.location, ssl.ca.pem"
        _trust(context, options)
        if revoked := options.get("ssl.crl.location"):
            doing = "ssl.crl.location"
            context.load_verify_locations(cafile=revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        doing = "the client's certificate and key"
        _identify(context, options)
        if suites := options.get("ssl.cipher.suites"):
            doing = "ssl.cipher.suites"
            context.set_ciphers(suites)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"TLS files of `kafka_options` cannot be used ({doing}): {_said(error)}") from None
    if options.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if options.get("enable.ssl.certificate.verification", "true").lower() in _FALSE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _said(error: Exception) -> str:
    """ssl's own errors say little, and a ValueError may quote its input."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return str(error)
    said = f" ({getattr(error, 'reason', None) or error})" if isinstance(error, ssl.SSLError) else ""
    return f"not in the right format, a wrong password, or a key of another certificate{said}"


def _trust(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    location, pem = options.get("ssl.ca.location"), options.get("ssl.ca.pem")
    if location and location != "probe":
        if Path(location).is_dir():
            context.load_verify_locations(capath=location)
        else:
            context.load_verify_locations(cafile=location)
    if pem:
        context.load_verify_locations(cadata=pem)
    if not pem and location in (None, "", "probe"):
        context.load_default_certs()


def _identify(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    password = options.get("ssl.key.password")
    certificate, key = options.get("ssl.certificate.location"), options.get("ssl.key.location")
    certificate_pem, key_pem = options.get("ssl.certificate.pem"), options.get("ssl.key.pem")
    if keystore := options.get("ssl.keystore.location"):
        pem, passphrase = _keystore(keystore, options.get("ssl.keystore.password"))
        with _as_file(pem) as file:
            context.load_cert_chain(file, password=passphrase)
    elif certificate or certificate_pem:
        with _as_file(certificate_pem) as certificate_file, _as_file(key_pem) as key_file:
            # An empty password: OpenSSL must not ask for one at the terminal.
            context.load_cert_chain(certificate or certificate_file, key or key_file or None, password or "")
    elif key or key_pem:
        raise ConfigError("`kafka_options`: a key without ssl.certificate.location or ssl.certificate.pem")


def _keystore(location: str, password: str | None) -> tuple[str, str]:
    """Certificates and key of a PKCS#12 file as PEM, the key encrypted with the passphrase that comes with it."""
    try:
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
            pkcs12,
        )
    except ModuleNotFoundError:
        raise PrerequisiteError(
            "`kafka_options`: ssl.keystore.location needs the package cryptography: "
            "pip install 'slipstream-embeddings[keystore]', or give ssl.certificate.location and ssl.key.location"
        ) from None
    found = pkcs12.load_pkcs12(Path(location).read_bytes(), password.encode() if password else None)
    if found.key is None or found.cert is None:
        raise ConfigError(f"`kafka_options`: the keystore {location} has no key with its certificate")
    passphrase = secrets.token_hex(16)
    encryption = BestAvailableEncryption(passphrase.encode())
    parts = [found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)]
    parts += [held.certificate.public_bytes(Encoding.PEM) for held in (found.cert, *found.additional_certs)]
    return b"".join(parts).decode(), passphrase


@contextmanager
def _as_file(pem: str | None) -> Iterator[str]:
    """A path for Python's ssl, which takes no strings: in memory where the system can, else a file that only we can read."""
    if pem is None:
        yield ""
    elif hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("pem"), "w") as memory:
            memory.write(pem)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pem)
            file.flush()
            yield file.name
