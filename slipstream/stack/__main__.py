"""A developer's door: `python -m slipstream.stack up | down | status --data-dir DIR`. People use `slipstream up`.

`fetch` downloads what `up` would, unless the environment gives both addresses: for a set-up before tests with a time limit.
`guard` is for slipstream.stack.guard alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from schemas.errors import SlipstreamError
from slipstream import stack
from slipstream.stack.guard import wait_and_stop
from slipstream.stack.state import PARTS


def say(message: str) -> None:
    print(message, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m slipstream.stack", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status", "fetch", "guard"])
    parser.add_argument("--data-dir", type=Path, default=Path("var/stack"))
    parser.add_argument("--keep", nargs="*", choices=PARTS, default=[], help="guard: parts that go on")
    arguments = parser.parse_args()
    try:
        if arguments.action == "up":
            running = stack.up(arguments.data_dir, notify=say)
            print(f"{running.kafka_bootstrap} {running.redis_url}")
        elif arguments.action == "down":
            print("stopped:", *stack.down(arguments.data_dir) or ("nothing",))
        elif arguments.action == "fetch":
            addresses = (os.environ.get(f"SLIPSTREAM_{name}") for name in ("KAFKA_BOOTSTRAP", "REDIS_URL"))
            stack.fetch(*addresses, notify=say)
        elif arguments.action == "guard":
            wait_and_stop(arguments.data_dir, arguments.keep)
        else:
            found = stack.status(arguments.data_dir)
            print(found.kafka, found.redis, sep="\n")
            return 0 if found.healthy else 1
    except SlipstreamError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
