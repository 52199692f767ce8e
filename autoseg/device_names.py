"""Names of devices in settings, commands and functions. Loads without torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

NAME = re.compile(r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?")


def checked_name(name: object) -> str:
    """Return `name` if a device may have it, present or not. Raises: ValueError: it is no name of a device."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ValueError(f"should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not {name!r}")
    return name


DeviceName = Annotated[str, BeforeValidator(checked_name)]
