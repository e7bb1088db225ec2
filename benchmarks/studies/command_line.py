"""Shared parts of the studies: options, exit codes, errors in one line."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from catdog_edge.errors import CatdogError
from catdog_edge.system.files import write_text
from catdog_edge.system.log_to_stderr import log_to_stderr
from catdog_edge.system.threads import MOST


class StudyParser(argparse.ArgumentParser):
    """The command line of a study: add its options, then call it with the arguments."""

    def __init__(
        self, name: str, description: str | None, body: Callable[[argparse.Namespace], None]
    ) -> None:
        self._name, self._body, raw = name, body, argparse.RawDescriptionHelpFormatter
        prog = f"python -m benchmarks.studies.{name}"
        super().__init__(prog=prog, description=description, formatter_class=raw)

    def seconds(self, default: float, what: str, option: str = "--seconds") -> None:
        """Add an option for a duration above 0."""
        self.add_argument(option, type=_positive, default=default, help=f"{what} ({default:g})")

    def threads(self, what: str, default: int | None = None) -> None:
        """Add `--threads`."""
        self.add_argument("--threads", type=_threads, default=default, help=what)

    def json(self) -> None:
        """Add `--json`, see `keep`."""
        self.add_argument("--json", type=Path, help="keep the figures in this file")

    def __call__(self, arguments: list[str] | None = None) -> int:
        """Run `body` with the options; print an error as one line, and return the exit code."""
        options = self.parse_args(arguments)
        try:
            with log_to_stderr():
                self._body(options)
        except CatdogError as error:
            print(f"{self._name}: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print(f"{self._name}: interrupted; nothing is kept", file=sys.stderr)
            return 1
        return 0


def keep(document: Mapping[str, Any], path: Path | None) -> None:
    """Write the figures as JSON; `None`: not."""
    if path is not None:
        write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError("give a number of seconds above 0")
    return value


def _threads(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"give a whole number in 1..{MOST}")
    return value
