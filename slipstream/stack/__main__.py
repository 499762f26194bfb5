"""A developer's door: `python -m slipstream.stack up | down | status --data-dir DIR`. People use `slipstream up`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from schemas.errors import SlipstreamError
from slipstream import stack


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m slipstream.stack", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--data-dir", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        if arguments.action == "up":
            running = stack.up(arguments.data_dir, notify=lambda message: print(message, file=sys.stderr))
            print(f"{running.kafka_bootstrap} {running.redis_url}")
        elif arguments.action == "down":
            print("stopped:", *stack.down(arguments.data_dir) or ("nothing",))
        else:
            found = stack.status(arguments.data_dir)
            print(found.kafka, found.redis, sep="\n")
            return 0 if found.healthy else 1
    except SlipstreamError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
