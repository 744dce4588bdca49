"""The command `crowdnash`: parse, call the library, print. No mathematics."""

from crowdnash.cli.commands import main

__all__ = ["main"]
