"""A real broker with every kind of login: SASL over TLS (SCRAM, PLAIN, OAUTHBEARER), client certificates, and access rights.

The launcher's own listener stays without security; nobody else uses it. Its user (ANONYMOUS) and `admin` may do everything.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from edge.kafka import KafkaConfig
from slipstream.stack import Stack, running
from slipstream.stack.choose import Machine
from slipstream.stack.process import HOST, free_port
from tests.edge.certificates import Authority

USER, PASSWORD, KEY_PASSWORD = "app", "hunter2-of-app", "hunter2-of-key"
ADMIN, ADMIN_PASSWORD = "admin", "hunter2-of-admin"
#: Of PLAIN alone, with USER's password.
STAGE_USERS = ("ingest", "sequence", "encode")
CLIENT_SECRET = "hunter2-of-oauth"
SECRETS = (PASSWORD, KEY_PASSWORD, ADMIN_PASSWORD, CLIENT_SECRET)
_MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecureKafka:
    """A broker, and how to log in to it: `options[mode]` are librdkafka's."""

    stack: Stack
    sasl: str  # bootstrap servers
    mtls: str
    options: Mapping[str, Mapping[str, str]]

    def config(self, mode: str) -> KafkaConfig:
        return KafkaConfig(self.mtls if mode == "mtls" else self.sasl, self.options[mode])


@contextmanager
def secure_kafka(directory: Path) -> Iterator[SecureKafka]:
    """Started with certificates of its own; stopped at the end."""
    authority = Authority()
    server, client = authority.issue("broker"), authority.issue("client")
    file = {name: directory / name for name in ("ca.pem", "server.pem", "client.pem", "client.key", "client.p12")}
    file["ca.pem"].write_text(authority.pem())
    file["server.pem"].write_text(server.key_pem() + server.certificate_pem())
    file["client.pem"].write_text(client.certificate_pem())
    file["client.key"].write_text(client.key_pem(KEY_PASSWORD))
    file["client.p12"].write_bytes(client.keystore(KEY_PASSWORD))
    sasl_port = free_port()
    sasl, mtls = f"{HOST}:{sasl_port}", f"{HOST}:{free_port([sasl_port])}"
    machine = replace(
        Machine.this(),
        kafka_properties=_properties(sasl, mtls, file),
        kafka_format=(
            *("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
            *("--add-scram", f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"),
        ),
    )
    with token_endpoint() as url, running(directory / "stack", machine=machine) as stack:
        tls = {"security.protocol": "SASL_SSL", "ssl.ca.location": str(file["ca.pem"])}
        login = {**tls, "sasl.username": USER, "sasl.password": PASSWORD}
        options: dict[str, dict[str, str]] = {
            "plain": {**login, "sasl.mechanism": "PLAIN"},
            "scram-256": {**login, "sasl.mechanism": "SCRAM-SHA-256"},
            "scram-512": {**login, "sasl.mechanisms": "SCRAM-SHA-512"},
            "oauth": {
                **tls,
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": USER,
                "sasl.oauthbearer.client.secret": CLIENT_SECRET,
                "sasl.oauthbearer.token.endpoint.url": url,
            },
            "mtls": {
                "security.protocol": "SSL",
                "ssl.ca.location": str(file["ca.pem"]),
                "ssl.certificate.location": str(file["client.pem"]),
                "ssl.key.location": str(file["client.key"]),
                "ssl.key.password": KEY_PASSWORD,
            },
            "keystore": {
                "security.protocol": "SSL",
                "ssl.ca.pem": authority.pem(),
                "ssl.keystore.location": str(file["client.p12"]),
                "ssl.keystore.password": KEY_PASSWORD,
            },
        }
        yield SecureKafka(stack, sasl, mtls, options)


def _properties(sasl: str, mtls: str, file: Mapping[str, Path]) -> dict[str, str]:
    listeners = f"SECURE://{sasl},MTLS://{mtls}"
    of_secure = "listener.name.secure"
    passwords = {**dict.fromkeys((USER, *STAGE_USERS), PASSWORD), ADMIN: ADMIN_PASSWORD}
    users = " ".join(f'user_{name}="{password}"' for name, password in passwords.items())
    return {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "SECURE:SASL_SSL,MTLS:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(file["server.pem"]),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(file["ca.pem"]),
        "listener.name.mtls.ssl.client.auth": "required",
        f"{of_secure}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{of_secure}.plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required {users};",
        f"{of_secure}.scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{of_secure}.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{of_secure}.oauthbearer.sasl.jaas.config": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{ADMIN}",
    }


@contextmanager
def token_endpoint() -> Iterator[str]:
    """Gives the right client tokens that Kafka's built-in validator takes (unsigned); its URL."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            expected = base64.b64encode(f"{USER}:{CLIENT_SECRET}".encode()).decode()
            known = self.headers["Authorization"] == f"Basic {expected}"
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            answer = {"access_token": _token(), "expires_in": 600} if known else {"error": "invalid_client"}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer((HOST, 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()


def _token() -> str:
    now_s = int(time.time())
    parts = ({"alg": "none"}, {"sub": USER, "iat": now_s, "exp": now_s + 600, "scope": "kafka"})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join(encoded) + "."


class Cli:
    """The command line, with its settings in the environment."""

    def __init__(self, kafka: KafkaConfig, redis_url: str, prefix: str, bundle: Path, directory: Path) -> None:
        self._directory = directory
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")},
            "SLIPSTREAM_KAFKA_BOOTSTRAP": kafka.bootstrap_servers,
            "SLIPSTREAM_KAFKA_OPTIONS": json.dumps(dict(kafka.options)),
            "SLIPSTREAM_REDIS_URL": redis_url,
            "SLIPSTREAM_PREFIX": prefix,
            "SLIPSTREAM_BUNDLE": str(bundle),
            "SLIPSTREAM_DATA_DIR": str(directory / "var"),
        }

    def start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A command and the file with all it prints."""
        log = self._directory / f"{'-'.join(arguments)}.log".replace("/", "_")
        with log.open("ab") as output:
            command = [sys.executable, "-m", "slipstream", *arguments]
            process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return process, log

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and all that was printed."""
        process, log = self.start(*arguments)
        try:
            return process.wait(60), log.read_text(errors="replace")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
