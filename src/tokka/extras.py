"""Heavy libraries are optional: `require("torch", extra="train")` imports one or says how to get
it."""

from __future__ import annotations

import importlib
from types import ModuleType

from tokka.errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import `module`; where it is missing, raise MissingExtra naming the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise  # the module is there, one of its own needs is not
        raise MissingExtra(
            f"{module} is not installed; install it with: pip install 'tokka[{extra}]'"
        ) from error
