"""Bearer tokens for aiokafka: what librdkafka does by itself for `sasl.oauthbearer.method=oidc`, the client credentials grant."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from aiokafka.abc import AbstractTokenProvider  # type: ignore[import-untyped]
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]

from edge.tls import ssl_context
from schemas.errors import ConfigError

_TIMEOUT_S = 10.0
#: A token is asked for again when so much of its life is over.
_RENEW_AT = 0.8
#: Of a token that does not say how long it lives.
_LIFETIME_S = 300.0
_KNOWN = frozenset(
    f"sasl.oauthbearer.{name}"
    for name in (
        "method",
        "client.id",
        "client.credentials.client.id",
        "client.secret",
        "client.credentials.client.secret",
        "token.endpoint.url",
        "scope",
        "extensions",
        "grant.type",
        "sub.claim.name",  # which claim librdkafka takes for the principal: the broker decides that
    )
)


class _NoRedirects(HTTPRedirectHandler):
    """The client's secret goes to the endpoint that was named, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class OidcTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of one client, asked for once and shared by all connections, whatever their event loop.

    Raises:
        ConfigError: an option is missing, or asks for something else than the client credentials grant.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        method = options.get("sasl.oauthbearer.method", "default").lower()
        if method != "oidc":
            raise ConfigError(
                f"`kafka_options`: sasl.oauthbearer.method {method} cannot be given to aiokafka, which the sequence stage uses: "
                "set it to oidc, with sasl.oauthbearer.token.endpoint.url, .client.id and .client.secret"
            )
        other = sorted(name for name in options if name.startswith("sasl.oauthbearer.") and name not in _KNOWN)
        if other or options.get("sasl.oauthbearer.grant.type", "client_credentials") != "client_credentials":
            raise ConfigError(
                f"`kafka_options`: {', '.join(other) or 'sasl.oauthbearer.grant.type'} cannot be given to aiokafka, which the "
                "sequence stage uses: only the client credentials grant can"
            )

        def needed(name: str, other_name: str = "") -> str:
            found = options.get(f"sasl.oauthbearer.{name}") or options.get(f"sasl.oauthbearer.{other_name}")
            if not found:
                raise ConfigError(f"`kafka_options`: sasl.oauthbearer.method oidc needs sasl.oauthbearer.{name}")
            return found

        self._url = needed("token.endpoint.url")
        login = f"{quote(needed('client.id', 'client.credentials.client.id'), safe='')}:" + quote(
            needed("client.secret", "client.credentials.client.secret"), safe=""
        )
        self._headers = {
            "Accept": "application/json",
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        form = {"grant_type": "client_credentials"}
        if scope := options.get("sasl.oauthbearer.scope"):
            form["scope"] = scope
        self._form = urlencode(form).encode()
        self._extensions = _pairs(options.get("sasl.oauthbearer.extensions", ""))
        trust = {f"ssl.ca.{kind}": options.get(f"https.ca.{kind}", "") for kind in ("location", "pem")}
        self._tls: ssl.SSLContext = ssl_context(trust)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_s = 0.0

    async def token(self) -> str:
        """Raises KafkaConnectionError, after which aiokafka tries again."""
        return await asyncio.to_thread(self._current)

    def extensions(self) -> dict[str, str]:
        return self._extensions

    def _current(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_s:
                self._token, lifetime_s = self._fetch()
                self._renew_s = time.monotonic() + _RENEW_AT * lifetime_s
            return self._token

    def _fetch(self) -> tuple[str, float]:
        request = Request(self._url, self._form, self._headers)
        opener = build_opener(_NoRedirects, HTTPSHandler(context=self._tls))
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                answer = json.load(response)
            return str(answer["access_token"]), float(answer.get("expires_in") or _LIFETIME_S)
        except HTTPError as error:  # its body may quote what we sent
            why = f"status {error.code}"
        except (URLError, OSError) as error:
            why = str(getattr(error, "reason", error))
        except (ValueError, KeyError, TypeError, AttributeError):
            why = "the answer has no access_token"
        raise KafkaConnectionError(f"no token from sasl.oauthbearer.token.endpoint.url: {why}")


def _pairs(text: str) -> dict[str, str]:
    """`a=1,b=2`, as librdkafka has it."""
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise ConfigError("`kafka_options`: sasl.oauthbearer.extensions is not name=value,name=value")
        pairs[name] = value
    return pairs
