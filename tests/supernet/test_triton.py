"""Our own kernels for depthwise convolutions: in Triton's interpreter, and whether they compile for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")


@pytest.mark.parametrize("what", ["kernels", "operations", "supernet"])
def test_interpreted_on_a_cpu(what: str) -> None:
    """See `triton_interpreted.py`. A process of its own: the interpreter is switched on when the kernels are loaded."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "helpers.triton_interpreted", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def assembly(kernel: Any, values: dict[str, int], precision: str) -> str:
    """The PTX for an H100 of a kernel with these constants, its other arguments being pointers and 32-bit integers."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = ("features", "weight", "result", "grad", "sums")
    types: dict[str, str] = dict.fromkeys(kernel.arg_names, "i32")
    types |= {name: f"*{precision}" for name in types if name in pointers} | dict.fromkeys(values, "constexpr")
    types |= {"sums": "*fp32"} if "sums" in types else {}
    aligned = [name for name in types if name in pointers]
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(kernel.arg_names.index(name),): value for name, value in values.items()},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert compiled.asm["cubin"]
    text: str = compiled.asm["ptx"]
    return text


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_for_a_gpu_neighbours_are_read_at_once(size: int, precision: str) -> None:
    """In channels_last memory a thread reads several channels by one instruction, features, gradients and weights.

    Also where steps in memory are multiples of 8 alone, for Triton finds out by itself those of 16.
    """
    from autoseg.supernet.fast import triton_depthwise as ours

    memory, taps = ours._Memory(image=640 * 6561, pixel=640, channel=1), 16 if size == 3 else 32
    pixels, channels = ours._blocks(memory, 6561, 320, ours.TILE, ours.SIDE)
    shape = {"k": size, "rate": 2, "unit": 8, "pixels": pixels, "channels": channels}
    ones = dict.fromkeys(("channel_in", "channel_out", "channel_weight"), 1)
    text = assembly(ours._convolve, {**shape, **ones, "turned": False}, precision)
    loads = [line for line in text.splitlines() if "ld.global" in line]
    assert loads
    assert all(".v4." in line for line in loads)

    pixels, channels = ours._blocks(memory, ours.CHUNK, 320, ours.WEIGHT_TILE // taps, ours.SIDE // 2)
    shape = {"k": size, "rate": 2, "unit": 8, "pixels": pixels, "channels": channels, "chunk": ours.CHUNK, "taps": taps}
    text = assembly(ours._correlate, {**shape, **dict.fromkeys(("channel_in", "channel_grad"), 1)}, precision)
    loads = [line for line in text.splitlines() if "ld.global" in line]
    assert sum(".v4." in line for line in loads) > len(loads) / 2
