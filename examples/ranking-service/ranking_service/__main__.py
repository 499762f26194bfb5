"""`python -m ranking_service --bundle var/model --redis-url redis://localhost:6379`"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from ranking_service.app import make_app
from ranking_service.service import Service, ServiceConfig
from schemas.errors import SlipstreamError


def serve(
    bundle: Annotated[Path, typer.Option(help="Model bundle")],
    redis_url: Annotated[str, typer.Option(envvar="SLIPSTREAM_REDIS_URL", help="As ranker.StateReader takes it")],
    prefix: Annotated[str, typer.Option(envvar="SLIPSTREAM_PREFIX", help="Of the deployment")] = "slipstream",
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    deadline_ms: Annotated[int, typer.Option(min=1, help="Of a request as a whole")] = 100,
    read_ms: Annotated[int, typer.Option(min=1, help="Of that, for reading the state")] = 50,
    max_age_ms: Annotated[
        int | None, typer.Option(min=0, help="Older states count as stale [default: none does]")
    ] = None,
) -> None:
    """Scores candidates by fresh user states; by popularity where there is no state, or no time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        service = Service(ServiceConfig(bundle, redis_url, prefix, deadline_ms, read_ms, max_age_ms))
    except SlipstreamError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    uvicorn.run(make_app(service), host=host, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(serve)
