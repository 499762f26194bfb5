"""librdkafka's security options for aiokafka, on which Faust and the changelog's writers run.

What librdkafka can be told and aiokafka cannot is an error at the start, never a weaker connection.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from edge.tls import ssl_context
from schemas.errors import ConfigError, PrerequisiteError

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def aiokafka_security(options: Mapping[str, str]) -> dict[str, Any]:
    """Security arguments of aiokafka's clients.

    Raises:
        ConfigError: an option is wrong, missing, or beyond aiokafka.
        PrerequisiteError: a package is missing.
    """
    protocol = options.get("security.protocol", "plaintext").upper()
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"`kafka_options`: security.protocol {protocol} is none of {', '.join(_PROTOCOLS)}")
    arguments: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        arguments["ssl_context"] = ssl_context(options)
    if protocol.startswith("SASL"):
        arguments |= _sasl(options)
    return arguments


def _sasl(options: Mapping[str, str]) -> dict[str, Any]:
    # The default is librdkafka's, or the two of them would log in differently.
    mechanism = (options.get("sasl.mechanism") or options.get("sasl.mechanisms") or "GSSAPI").upper()
    if mechanism in _PASSWORD_MECHANISMS:
        for name in ("sasl.username", "sasl.password"):
            if not options.get(name):
                raise ConfigError(f"`kafka_options`: sasl.mechanism {mechanism} needs {name}")
        login = {"sasl_plain_username": options["sasl.username"], "sasl_plain_password": options["sasl.password"]}
        return {"sasl_mechanism": mechanism, **login}
    if mechanism == "OAUTHBEARER":
        from edge.oauth import OidcTokens  # its aiokafka takes longer to import than most commands run

        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": OidcTokens(options)}
    if mechanism == "GSSAPI":
        if importlib.util.find_spec("gssapi") is None:
            raise PrerequisiteError(
                "`kafka_options`: sasl.mechanism GSSAPI (librdkafka's default) needs the package gssapi: pip install gssapi; and "
                "a confluent-kafka that was built with Kerberos: pip install --no-binary confluent-kafka confluent-kafka"
            )
        # Tickets are in the cache of this user, where librdkafka's clients of the same process put and renew them with
        # sasl.kerberos.principal, .keytab and .kinit.cmd.
        service = options.get("sasl.kerberos.service.name", "kafka")
        return {"sasl_mechanism": mechanism, "sasl_kerberos_service_name": service}
    raise ConfigError(
        f"`kafka_options`: sasl.mechanism {mechanism}: known are {', '.join((*_PASSWORD_MECHANISMS, 'OAUTHBEARER', 'GSSAPI'))}"
    )
