"""torch.compile, checked on this machine first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch

from autoseg.errors import ConfigError
from autoseg.files import one_line

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, device: torch.device) -> Function:
    """Return `function` compiled; compilation happens at its first call.

    Raises: ConfigError: this machine cannot compile a small test program.
    """
    import torch._inductor.config as settings  # slow to import

    try:
        with settings.patch(fx_graph_cache=False):  # a cached program would prove nothing
            torch.compile(lambda numbers: numbers + 1)(torch.ones(2, device=device))
    except Exception as reason:  # whatever the compilers raise
        said = one_line(str(reason).split("\n\n")[0])
        raise ConfigError(
            f"torch.compile does not work here ({said}); install a C++ compiler such as g++, or leave compile off",
            code="compiling-fails",
        ) from reason
    return cast(Function, torch.compile(function))
