"""Prints measurements as lines of JSON, and appends them to a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


def print_measurement(found: Any, out: Path | None) -> None:
    """Print a measurement (a dataclass) as a line of JSON; append it to ``out`` unless that is None."""
    line = json.dumps(dataclasses.asdict(found))
    print(line, flush=True)
    if out is not None:
        with open(out, "a") as sink:
            sink.write(line + "\n")
