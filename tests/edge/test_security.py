"""librdkafka's login options for aiokafka. Run: pytest tests/edge/test_security.py"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]

from edge.kafka import KafkaConfig
from edge.oauth import OidcTokens
from schemas.errors import ConfigError, PrerequisiteError

LOGIN = {"sasl.username": "me", "sasl.password": "hunter2"}
OIDC = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.method": "OIDC",
    "sasl.oauthbearer.client.id": "me@here",
    "sasl.oauthbearer.client.secret": "hunter2/+",
}


def aiokafka(**options: str) -> dict[str, Any]:
    return KafkaConfig("b:1", {name.replace("_", "."): value for name, value in options.items()}).aiokafka()


def test_without_options() -> None:
    assert KafkaConfig("b:1").aiokafka() == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "scram-sha-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_passwords(mechanism: str, name: str) -> None:
    options = {"security.protocol": "sasl_plaintext", name: mechanism, **LOGIN}
    assert KafkaConfig("b:1", options).aiokafka() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism.upper(),
        "sasl_plain_username": "me",
        "sasl_plain_password": "hunter2",
    }


def test_tls_with_a_login() -> None:
    arguments = aiokafka(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="me", sasl_password="x")
    context = arguments["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"security.protocol": "TLS"}, "security.protocol TLS"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "MD5"}, "sasl.mechanism MD5"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, "sasl.username"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "me"}, "sasl.password"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, "sasl.oauthbearer.method"),
        (OIDC, "sasl.oauthbearer.token.endpoint.url"),
        ({**OIDC, "sasl.oauthbearer.assertion.private.key.pem": "hunter2"}, "assertion.private.key.pem"),
        ({**OIDC, "sasl.oauthbearer.grant.type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "grant.type"),
        ({"security.protocol": "SSL", "ssl.sigalgs.list": "x"}, "ssl.sigalgs.list"),
    ],
)
def test_what_aiokafka_cannot_do_is_refused_by_name(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        KafkaConfig("b:1", options).aiokafka()
    assert "hunter2" not in str(caught.value)


def test_kerberos() -> None:
    options = {"security.protocol": "SASL_PLAINTEXT", "sasl.kerberos.service.name": "broker"}  # librdkafka's default
    if importlib.util.find_spec("gssapi") is None:
        with pytest.raises(PrerequisiteError, match="pip install gssapi"):
            KafkaConfig("b:1", options).aiokafka()
    else:
        arguments = KafkaConfig("b:1", options).aiokafka()
        assert (arguments["sasl_mechanism"], arguments["sasl_kerberos_service_name"]) == ("GSSAPI", "broker")


@contextmanager
def token_endpoint(*answers: tuple[int, object]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A real HTTP server that gives these answers, the last one again and again; its URL, and what it was asked."""
    asked: list[dict[str, str]] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append({"login": self.headers["Authorization"], **dict(urllib.parse.parse_qsl(form))})
            status, answer = answers[min(len(asked), len(answers)) - 1]
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked
        server.shutdown()
        thread.join()


def provider(url: str, **more: str) -> OidcTokens:
    options = {**OIDC, "sasl.oauthbearer.token.endpoint.url": url}
    options |= {f"sasl.oauthbearer.{name}": value for name, value in more.items()}
    found = KafkaConfig("b:1", options).aiokafka()["sasl_oauth_token_provider"]
    assert isinstance(found, OidcTokens)
    return found


def test_a_token_is_asked_for_once_and_shared_by_event_loops() -> None:
    with token_endpoint((200, {"access_token": "t1", "expires_in": 3600})) as (url, asked):
        tokens = provider(url, scope="kafka:write a&b", extensions="logicalCluster=lkc-1, pool=p")
        assert [asyncio.run(tokens.token()) for _ in range(3)] == ["t1"] * 3
    basic = base64.b64encode(b"me%40here:hunter2%2F%2B").decode()
    assert asked == [
        {"login": f"Basic {basic}", "grant_type": "client_credentials", "scope": "kafka:write a&b"},
    ]
    assert tokens.extensions() == {"logicalCluster": "lkc-1", "pool": "p"}


def test_an_old_token_is_renewed() -> None:
    answers = [(200, {"access_token": f"t{i}", "expires_in": 1e-6}) for i in range(3)]
    with token_endpoint(*answers) as (url, _):
        tokens = provider(url)
        assert [asyncio.run(tokens.token()) for _ in range(3)] == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((401, {"error": "invalid_client hunter2/+"}), "status 401"),
        ((302, {}), "status 302"),
        ((200, {"token": "t"}), "no access_token"),
        ((200, b"<html>"), "no access_token"),
        ((200, []), "no access_token"),
    ],
)
def test_no_token(answer: tuple[int, object], why: str) -> None:
    with token_endpoint(answer, (200, {"access_token": "late"})) as (url, _):
        tokens = provider(url)
        with pytest.raises(KafkaConnectionError, match=why) as caught:
            asyncio.run(tokens.token())
        assert "hunter2" not in str(caught.value)
        assert asyncio.run(tokens.token()) == "late"
    with pytest.raises(KafkaConnectionError, match="refused"):
        asyncio.run(provider("http://127.0.0.1:1/token").token())


def test_malformed_extensions() -> None:
    with pytest.raises(ConfigError, match="extensions"):
        provider("http://b/token", extensions="hunter2")
