"""One stage's worker with any of its configuration's fields: `python -m bench.worker STAGE JSON`.

The commands `slipstream ingest`, `sequence` and `encode` take what people set; a benchmark varies more.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge.kafka import KafkaConfig
from schemas.errors import SlipstreamError
from schemas.names import Names
from stream.config import IngestConfig, SequenceConfig


def main(stage: str, options: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    kafka, names = KafkaConfig(options.pop("kafka"), options.pop("kafka_options", {})), Names(options.pop("prefix"))
    for name in ("data_dir", "bundle", "refresh_log"):
        if name in options:
            options[name] = Path(options[name])
    try:
        if stage == "ingest":
            from stream.ingest import run_ingest

            run_ingest(IngestConfig(kafka, names, **options))
        elif stage == "encode":
            from encoder.backfill import BackfillConfig
            from encoder.config import EncodeConfig
            from encoder.worker import run_encode

            if "backfill" in options:
                options["backfill"] = BackfillConfig(**options["backfill"])
            run_encode(EncodeConfig(kafka, names=names, **options))
        else:
            from stream.sequence import run_sequence

            run_sequence(SequenceConfig(kafka, names, **options))
    except SlipstreamError as error:
        logging.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], msgspec.json.decode(sys.argv[2])))
