"""A measurement as one line of JSON: on the screen, and at the end of a file that collects them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


def tell(found: Any, out: Path | None) -> None:
    """Print a measurement (a dataclass) as a line, and append the line to ``out`` if that is given."""
    line = json.dumps(dataclasses.asdict(found))
    print(line, flush=True)
    if out is not None:
        with open(out, "a") as sink:
            sink.write(line + "\n")
