"""Which librdkafka options people may see, and what is shown instead of the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

MASK = "********"

#: Options of logging in and of TLS whose values are no secrets. A key that is not here and looks like one of those, a mistyped
#: one as well, is masked.
_PUBLIC = frozenset(
    {
        "enable.sasl.oauthbearer.unsecure.jwt",
        "enable.ssl.certificate.verification",
        "https.ca.location",
        "sasl.kerberos.keytab",
        "sasl.kerberos.min.time.before.relogin",
        "sasl.kerberos.principal",
        "sasl.kerberos.service.name",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.assertion.algorithm",
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.extensions",
        "sasl.oauthbearer.grant.type",
        "sasl.oauthbearer.metadata.authentication.type",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.username",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.cipher.suites",
        "ssl.crl.location",
        "ssl.curves.list",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.keystore.location",
        "ssl.sigalgs.list",
    }
)
_LOOKS_SECRET = re.compile(r"^(sasl|ssl|https)\b|pass|secret|key|token|credential|jaas|assertion|proxy", re.IGNORECASE)
#: Shorter values are not looked for in texts: they would blank out half of them.
_SHORTEST = 4


def masked(options: Mapping[str, str]) -> dict[str, str]:
    """librdkafka options that people may see: secrets are replaced, also a login in a URL."""
    return {key: MASK if _is_secret(key) else _without_login(value) for key, value in options.items()}


def redacted(text: str, options: Mapping[str, str]) -> str:
    """A foreign text, such as a library's error, without the secrets of `options`."""
    for key, value in options.items():
        if _is_secret(key) and len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return text


def _is_secret(key: str) -> bool:
    return key not in _PUBLIC and _LOOKS_SECRET.search(key) is not None


def _without_login(value: str) -> str:
    if not isinstance(value, str) or "://" not in value or "@" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return MASK
    return urlunsplit(parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}"))
