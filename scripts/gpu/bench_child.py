"""Measures the rows of `bench`, one after another in one process, and writes an event of each."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from bench_inference import bench_inference, bench_training
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from autoseg.config.base import merge
from autoseg.engine.config import SearchConfig
from autoseg.engine.cuda_graphs import CudaGraphs
from autoseg.engine.search import HALVES, Half, SearchTask
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.planning import memory as plan
from autoseg.planning import time as step_time
from autoseg.setup.settings import search_config, search_sources
from autoseg.space.schema import SearchSpace
from gpu.bench_rows import (
    CLASSES,
    DRY_GENOTYPE,
    PAPER_IMAGES,
    Row,
    SearchSetting,
    all_rows,
    chosen,
    predicted_settings,
    with_fastest,
)
from gpu.environment import describe
from gpu.supervisor import Events, child_parser, end_with_parent

TOP = 25
"""Kernels in a profile's table."""
MEASURED_SECONDS, LEAST_ITERATIONS, MOST_ITERATIONS = 2.0, 3, 20
DATA = {"layout": "generated", "num_classes": CLASSES}
FLOAT32 = ("ieee", "tf32")
"""What a matrix product of float32 is computed with."""


class Bench:
    """Measures rows on one device."""

    def __init__(self, device: torch.device, dry: bool, genotype: str | None) -> None:
        """genotype: of the searched network; without one, a random one of the space `tiny`."""
        self.device, self.dry, self.genotype = device, dry, genotype
        self.on_gpu = device.type == "cuda"

    def measure(self, row: Row) -> dict[str, Any]:
        """The figures of a row."""
        if row.kind == "limits":
            return self.limits()
        if row.kind == "network":
            return self.network(row.network, row.size)
        return self.operations(row.search) if row.kind == "operations" else self.search(row.search)

    # --- the card -----------------------------------------------------------------------------------------------------

    def limits(self) -> dict[str, Any]:
        """What the device reaches: FLOP/s of products of large matrices, bytes/s, read and written, of a copy."""
        side, elements = (256, 2**18) if self.dry else (8192, 2**28)
        found: dict[str, Any] = {"side": side, "copied_bytes": 4 * elements}
        a, b = (torch.randn(side, side, device=self.device) for _ in range(2))
        half_a, half_b = a.bfloat16(), b.bfloat16()
        found["bf16_flops_per_s"] = 2 * side**3 / self._best(lambda: half_a @ half_b)
        before = torch.backends.cuda.matmul.fp32_precision
        try:
            for precision in FLOAT32:
                torch.backends.cuda.matmul.fp32_precision = precision
                found[f"{precision}_flops_per_s"] = 2 * side**3 / self._best(lambda: a @ b)
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
        source, target = (torch.rand(elements, device=self.device) for _ in range(2))
        found["bytes_per_s"] = 8 * elements / self._best(lambda: target.copy_(source))
        return found

    def _best(self, work: Callable[[], Any]) -> float:
        """Seconds of the quickest of several calls."""
        work()
        return min(intervals([work] * 5, self.device)) / 1000

    # --- steps of a search --------------------------------------------------------------------------------------------

    def search(self, setting: SearchSetting) -> dict[str, Any]:
        """Milliseconds of a weight step, an architecture step and an iteration; memory; kernels; synchronisations."""
        config = settings_of(setting, self.dry)
        with self._memory() as memory, self._log_lines() as lines:
            task = self._task(config, setting)
            works = works_of(task)
            first = [gradient_norm(task, *one) for one in zip(works, HALVES, strict=True)]
            for _ in range(step_time.WARM_UP.get(self.device.type, 1)):
                for work in works:
                    work()
            later = [gradient_norm(task, *one) for one in zip(works, HALVES, strict=True)]
            weight, architecture = self._step_milliseconds(works)
        recorded = task.gradients.recordings.recorder is not None
        found: dict[str, Any] = {
            "settings": config.search.to_dict(),
            "weight_ms": statistics.median(weight),
            "architecture_ms": statistics.median(architecture),
            "iteration_ms": statistics.median(map(sum, zip(weight, architecture, strict=True))),
            "iterations": len(weight),
            "recorded": recorded,
            "gradient_norms": first,
            "later_gradient_norms": later,
            **memory,
        }
        found["paper_hours"] = step_time.count_steps(config, PAPER_IMAGES).hours(
            step_time.StepSeconds(found["weight_ms"] / 1000, found["architecture_ms"] / 1000)
        )
        found |= self._counted(works)
        used = task.supernet.kernels._asdict()
        found["kernels_used"] = used
        if self.on_gpu and setting.graphs and not recorded:
            lines.append("CUDA graphs were asked for, but the steps were eager")
        unused = [f"{name} {value}" for name, value in setting.kernels if used[name] != value]
        lines += [f"{one} was asked for, but not used" for one in unused]
        return found | ({"lines": lines} if lines else {})

    def _task(self, config: SearchConfig, setting: SearchSetting) -> SearchTask:
        torch.manual_seed(0)
        task = plan.stand_in_task(config, self.device)
        if self.on_gpu and setting.graphs and not setting.streams:
            task.gradients.recordings.recorder = CudaGraphs(self.device, 0)
        return task

    def _step_milliseconds(self, works: Sequence[Callable[[], None]]) -> tuple[list[float], list[float]]:
        """Of steps of both kinds in turn, as many as come in MEASURED_SECONDS, without waiting in between."""
        count = 1
        if not self.dry:
            pilot = sum(intervals(works, self.device)) / 1000
            count = round(min(MOST_ITERATIONS, max(LEAST_ITERATIONS, MEASURED_SECONDS / pilot)))
        times = intervals([*works] * count, self.device)
        return times[0::2], times[1::2]

    def _counted(self, works: Sequence[Callable[[], None]]) -> dict[str, Any]:
        """Kernels and host synchronisations of a weight step and an architecture step, and the slowest kernels."""
        found: dict[str, Any] = {"syncs": [count_syncs(work) for work in works] if self.on_gpu else None}
        try:
            profiles = [kernels_of(work, self.on_gpu) for work in works]
        except RuntimeError as reason:  # the machine does not allow profiling
            return found | {"kernels": None, "profile_error": str(reason)}
        merged = together(profiles)
        return found | {
            "kernels": [sum(calls for calls, _ in one.values()) for one in profiles],
            "kernel_ms": sum(ms for _, ms in merged.values()),
            "profile": [[name, calls, ms] for name, (calls, ms) in merged.items()][:TOP],
        }

    def operations(self, setting: SearchSetting) -> dict[str, Any]:
        """Which operations at which shapes take the device's time: of a weight and an architecture step."""
        task = self._task(settings_of(setting, self.dry), setting)
        works = works_of(task)
        for work in works:
            work()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        with profile(activities=activities, record_shapes=True) as profiler:
            for work in works:
                work()
            self._wait()
        averages = [
            one for one in profiler.key_averages(group_by_input_shape=True) if one.device_type == DeviceType.CPU
        ]
        times = [(one, one.self_device_time_total if self.on_gpu else one.self_cpu_time_total) for one in averages]
        slowest = sorted(times, key=lambda pair: -pair[1])[: 2 * TOP]
        return {"profile": [[f"{one.key} {shapes(one.input_shapes)}", one.count, us / 1000] for one, us in slowest]}

    # --- networks -----------------------------------------------------------------------------------------------------

    def network(self, name: str, size: tuple[int, int]) -> dict[str, Any]:
        """Images a second of inference and milliseconds of a training step, by variant."""
        if name == "searched":
            space = SearchSpace.load("tiny")
            genotype = Genotype.load(self.genotype) if self.genotype else sample_genotype(space, 0)
        else:
            genotype = Genotype.load(name)
        genotype = smaller(genotype) if self.dry else genotype
        torch.manual_seed(0)
        network = build_searched(genotype, CLASSES)
        warmup, rounds = (1, 1) if self.dry else (2, 5)
        options = argparse.Namespace(
            device=self.device, compile=False, batch=1, train_batch=2, crop=size, warmup=warmup, rounds=rounds
        )
        training = bench_training(network, options)
        gc.collect()
        inference = bench_inference(network, size, options)
        return {
            "genotype": genotype.name,
            "size": list(size),
            "train_batch": options.train_batch,
            "training_ms": {row["variant"]: 1000 * row["step_s"] for row in training},
            "images_per_s": {row["variant"]: row["images_per_s"] for row in inference},
        }

    # --- around it ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _memory(self) -> Iterator[dict[str, Any]]:
        """Fills in the peak of allocated and of reserved bytes, without what was there before; nothing on a CPU."""
        found: dict[str, Any] = {}
        if not self.on_gpu:
            yield found
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        yield found
        torch.cuda.synchronize()
        found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated() - before[0]
        found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved() - before[1]

    @contextmanager
    def _log_lines(self) -> Iterator[list[str]]:
        """What the engine warned of, such as a step that it could not record."""
        lines: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("autoseg").addHandler(handler)
        try:
            yield lines
        finally:
            logging.getLogger("autoseg").removeHandler(handler)

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def smaller(genotype: Genotype) -> Genotype:
    """For a dry run."""
    settings = merge(genotype.to_dict(), DRY_GENOTYPE)
    settings["stem"]["channels"] = [DRY_GENOTYPE["stem"]["channels"]] * len(genotype.stem.channels)
    return Genotype.parse(settings)


def settings_of(setting: SearchSetting, dry: bool) -> SearchConfig:
    """The settings of a search."""
    return search_config(search_sources(setting.space, DATA, overrides=setting.overrides(dry)))


def works_of(task: SearchTask) -> list[Callable[[], None]]:
    """A weight step and an architecture step of a search, each on one batch."""
    torch.manual_seed(1)
    batches = {step: plan.random_batch(task) for step in plan.STEPS}
    return [lambda step=step, batch=batch: plan.take_step(task, step, [batch]) for step, batch in batches.items()]


def gradient_norm(task: SearchTask, work: Callable[[], None], half: Half) -> float:
    """The length of the gradient of a step, which it makes."""
    work()
    found = [parameter.grad for parameter in task.gradients.parameters[half] if parameter.grad is not None]
    return float(torch.stack([gradient.double().norm() for gradient in found]).norm())


def intervals(works: Sequence[Callable[[], Any]], device: torch.device) -> list[float]:
    """Milliseconds of each of some works, done one after another without waiting: events on a GPU, else a clock."""
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for work in works:
            work()
            marks.append(time.perf_counter())
        return [1000 * (after - before) for before, after in pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(works) + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for work, event in zip(works, events[1:], strict=True):
        work()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in pairwise(events)]


def count_syncs(work: Callable[[], None]) -> int:
    """How often a step makes the host wait for the device, as far as PyTorch notices."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


Kernels = dict[str, tuple[int, float]]
"""Name -> calls, and milliseconds in all."""


def kernels_of(work: Callable[[], None], on_gpu: bool) -> Kernels:
    """The kernels of a step; on a CPU its operations."""
    activity, device = (ProfilerActivity.CUDA, DeviceType.CUDA) if on_gpu else (ProfilerActivity.CPU, DeviceType.CPU)
    with profile(activities=[activity]) as profiler:
        work()
        if on_gpu:
            torch.cuda.synchronize()
    return {
        one.key: (one.count, (one.self_device_time_total if on_gpu else one.self_cpu_time_total) / 1000)
        for one in profiler.key_averages()
        if one.device_type == device and not one.is_user_annotation
    }


def together(profiles: Sequence[Kernels]) -> Kernels:
    """Several steps as one, slowest first."""
    merged: Kernels = {}
    for one in profiles:
        for name, (calls, ms) in one.items():
            before = merged.get(name, (0, 0.0))
            merged[name] = before[0] + calls, before[1] + ms
    return dict(sorted(merged.items(), key=lambda pair: -pair[1][1]))


def shapes(found: Sequence[Any]) -> str:
    """Such as `2x64x81x81 128x1x3x3`, of an operation's tensors."""
    return " ".join("x".join(map(str, shape)) for shape in found if isinstance(shape, list) and shape)[:120]


def predict(events: Events, dry: bool) -> None:
    """Predict the memory of some settings on a card, which need not be there."""
    for name, setting in predicted_settings().items():
        began = time.perf_counter()
        config = settings_of(setting, dry)
        in_turn = config.search.model_copy(update={"arch_start_epoch": 0})  # as the rows take the steps
        memory = plan.predict_memory(config.model_copy(update={"search": in_turn}), torch.device("cuda"))
        found = {"eager_bytes": memory.eager_bytes, "graph_bytes": memory.graph_bytes, "peak_step": memory.peak_step}
        events("predicted", name=name, **found, seconds=time.perf_counter() - began)


def run_rows(bench: Bench, rows: Sequence[Row], results: list[Mapping[str, Any]], events: Events, end: float) -> None:
    """Measure rows. results: of rows that were measured before. end: no row starts whose limit would pass it."""
    for row in rows:
        if time.time() + row.limit > end:
            left = max(0.0, end - time.time())
            events("start", name=row.name)
            events(
                "end", name=row.name, outcome="skipped", detail=f"{left:.0f} s were left, its limit is {row.limit:g} s"
            )
            continue
        events("start", name=row.name)
        began = time.perf_counter()
        try:
            given = with_fastest(row, results)
            found = {"outcome": "done", "kernels_chosen": dict(given.search.kernels), **bench.measure(given)}
        except Exception as reason:
            detail = traceback.format_exc()[-4000:]
            found = {"outcome": "failed", "reason": f"{type(reason).__name__}: {reason}"[:500], "detail": detail}
        events("end", name=row.name, took=time.perf_counter() - began, **found)
        results.append({"name": row.name, **found})
        del found
        gc.collect()
        if bench.on_gpu and not _device_is_well():
            events("restart", reason=f"a CUDA error in {row.name}")
            sys.exit(3)


def _device_is_well() -> bool:
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def main() -> int:
    """The exit status is 0, whatever the rows came to."""
    parser = child_parser(__doc__)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--end", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--only", default="[]", help="JSON: parts of rows' names")
    parser.add_argument("--genotype")
    parser.add_argument("--predict", action="store_true", help="predict memory instead")
    options = parser.parse_args()
    end_with_parent()
    events = Events(options.events)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.dry else "cpu")
    if options.predict:
        predict(events, options.dry)
        return 0
    events("environment", **describe())
    state = json.loads(options.state.read_text(encoding="utf-8"))
    rows = [row for row in chosen(all_rows(options.dry), json.loads(options.only)) if row.name not in state["done"]]
    events("planned", names=[row.name for row in rows])
    run_rows(Bench(device, options.dry, options.genotype), rows, state["results"], events, options.end)
    return 0


if __name__ == "__main__":
    sys.exit(main())
