"""Run: pytest tests/edge/test_masking.py"""

from __future__ import annotations

import pytest

from edge.kafka import Admin, KafkaConfig
from edge.masking import MASK, masked, redacted
from schemas.errors import ConfigError

#: librdkafka's properties that hold a secret (CONFIGURATION.md of 2.16), and what people mistype.
SECRET = [
    "sasl.password",
    "sasl.jaas.config",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.kerberos.kinit.cmd",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "ssl.truststore.password",
    "sasl.pasword",
    "sasl_password",
    "ssl.keypassword",
    "SASL.PASSWORD",
    "password",
]
PUBLIC = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "me",
    "sasl.oauthbearer.client.id": "me",
    "sasl.oauthbearer.token.endpoint.url": "https://login/token",
    "ssl.ca.location": "/ca.pem",
    "ssl.certificate.location": "/me.pem",
    "ssl.key.location": "/me.key",
    "ssl.keystore.location": "/me.p12",
    "ssl.endpoint.identification.algorithm": "none",
    "enable.ssl.certificate.verification": "false",
    "socket.timeout.ms": "5000",
    "client.id": "x",
}


@pytest.mark.parametrize("key", SECRET)
def test_secrets_are_masked(key: str) -> None:
    assert masked({key: "hunter2"}) == {key: MASK}
    config = KafkaConfig("b:1", {key: "hunter2"})
    for text in (repr(config), str(config), f"{config}"):
        assert "hunter2" not in text
    said = ""
    try:  # librdkafka refuses some of them, and says why
        Admin(config)
    except ConfigError as error:
        said = str(error)
    assert "hunter2" not in said


def test_what_is_no_secret_is_shown() -> None:
    assert masked(PUBLIC) == PUBLIC


def test_a_login_in_a_url_is_masked() -> None:
    shown = masked({"sasl.oauthbearer.token.endpoint.url": "https://me:hunter2@login:8443/token?a=b"})
    assert shown == {"sasl.oauthbearer.token.endpoint.url": f"https://{MASK}@login:8443/token?a=b"}


def test_foreign_texts_are_redacted() -> None:
    options = {"sasl.password": "hunter2", "sasl.username": "hunter", "ssl.key.password": "a"}
    assert redacted("hunter2 is a bad password of hunter", options) == f"{MASK} is a bad password of hunter"
