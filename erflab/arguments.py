"""The arguments of a verb: what argparse would print and exit for is a ConfigError with the usage."""

from __future__ import annotations

import argparse
from typing import NoReturn

from erflab.errors import ConfigError


class Arguments(argparse.ArgumentParser):
    """A parser of positional arguments and options in any order."""

    def __init__(self, verb: str, usage: str, description: str | None) -> None:
        super().__init__(f"erflab {verb}", usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}. Usage: {self.usage}")
