"""The JSON Schemas of what people write, as shipped with the package. Reads files; judges nothing.

`reconciler/schema_files` is a link to the `schemas/` directory of the repository; in a wheel it holds the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

NAMES = ("service", "environment", "manifests", "settings")


@cache
def load_schemas() -> Mapping[str, Mapping[str, Any]]:
    """All schemas by short name: those of NAMES."""
    directory = resources.files("reconciler") / "schema_files"
    return {name: json.loads((directory / f"{name}.schema.json").read_text(encoding="utf-8")) for name in NAMES}
