"""What scripts share: a command line whose mistakes are one line."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends with one line and status 2, as autoseg does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong."""
        self.exit(2, f"error: {message}\n")
