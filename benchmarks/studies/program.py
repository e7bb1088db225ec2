"""What the programs of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Callable

from catdog_edge.errors import CatdogError
from catdog_edge.system.console import log_to_stderr


def exit_code(name: str, body: Callable[[], None]) -> int:
    """Run a program; print an error as one line on stderr.

    Args:
        name: Of the program, for the line.
        body: What to run.

    Returns:
        0, or the exit code of the error: 1, or 3 where a limit is not met.
    """
    try:
        with log_to_stderr():
            body()
    except CatdogError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing is kept", file=sys.stderr)
        return 1
    return 0
