"""The command line."""

from slipstream.cli.app import main

__all__ = ["main"]
