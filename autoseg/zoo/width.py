"""The width of a network: one factor of all its numbers of channels."""

from __future__ import annotations


def scaled(channels: int, width: float) -> int:
    """`channels` of the published network at `width` (1 as published), rounded, at least one."""
    return max(1, round(channels * width))
