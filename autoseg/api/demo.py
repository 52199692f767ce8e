"""All commands in turn on generated images, in minutes on two CPU cores."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from autoseg.analysis.flops import count_cost
from autoseg.api.decode import decode
from autoseg.api.evaluate import evaluate
from autoseg.api.plot import plot
from autoseg.api.retrain import retrain
from autoseg.api.search import search
from autoseg.config.base import merge
from autoseg.data.dataset import SegmentationDataset, open_dataset
from autoseg.data.statistics import count_classes
from autoseg.engine.config import SearchConfig
from autoseg.engine.environment import pick_device
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.log import show_seconds
from autoseg.engine.predict import label_map, load_network
from autoseg.engine.run_directory import Run, refuse_used
from autoseg.engine.search import SearchTask
from autoseg.engine.trainer import restore
from autoseg.errors import RunError
from autoseg.files import check_room, user_path, write_text
from autoseg.genotype.schema import Genotype
from autoseg.metrics.confusion import Scores
from autoseg.network import build_searched
from autoseg.setup.settings import check_precision, checked_schedule
from autoseg.supernet import build_supernet
from autoseg.supernet.fast.mixed_op import StackedNorm
from autoseg.viz.palette import palette
from autoseg.viz.samples import draw_predictions
from autoseg.viz.style import save

SETTINGS: dict[str, Any] = {
    "data": {"generated": {"train": 512}},
    "search": {"epochs": 8, "arch_start_epoch": 3, "max_steps_per_epoch": 16, "augment": {"scale": [1.0, 1.0]}},
    "retrain": {"epochs": 22, "augment": {"scale": [1.0, 1.0]}},
}
"""Changes to `tiny.yaml`: fewer steps, and no scaling, because classes of generated images differ in size."""
PICTURES = 4
CALIBRATION_BATCHES = 16


class Row(NamedTuple):
    """A network in the table of results."""

    network: str
    miou: float
    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None


def demo(
    out: str | Path = "runs/demo", *, overrides: Mapping[str, Any] | None = None, show_progress: bool = True
) -> str:
    """Search the space `tiny` on generated images, decode, retrain, evaluate and draw.

    Args:
        out: A new folder for both runs, the pictures, results.md and results.json.
        overrides: Nested settings, such as `{"search": {"epochs": 4}, "device": "cpu"}`.
        show_progress: Show progress bars.

    Returns:
        The table of results (mIoU, parameters, multiply-adds, time) as text.

    Raises:
        RunError: `out` is not empty.
        ConfigError: a setting is wrong, or the device cannot do it.
    """
    out = user_path(out, RunError)
    refuse_used(out)
    check_room(out)
    started = time.monotonic()
    settings = merge(SETTINGS, overrides or {})
    common = {key: value for key, value in settings.items() if key not in ("search", "retrain")}
    device = pick_device(common.get("device", "auto"))
    check_precision(checked_schedule(settings["retrain"]), "retrain", device)  # before minutes of searching
    searched = search(
        "tiny", "generated", out / "search", overrides={**common, "search": settings["search"]},
        show_progress=show_progress,
    )  # fmt: skip
    genotype = decode(searched)
    retrained = retrain(
        genotype, "generated", out / "retrain", overrides={**common, "retrain": settings["retrain"]},
        show_progress=show_progress,
    )  # fmt: skip
    result = evaluate(retrained.path, device=common.get("device", "auto"), show_progress=show_progress)
    rows = _rows(searched, genotype, result)
    figures = [*plot(searched.path), *plot(retrained.path), *_draw_pictures(retrained.path, out / "figures")]
    seconds = time.monotonic() - started
    results = {"rows": [row._asdict() for row in rows], "seconds": seconds}
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    table = _table(rows)
    pictures = [path.relative_to(out).as_posix() for path in figures if path.suffix == ".png"]
    shown = "".join(f"\n![{Path(path).stem}]({path})\n" for path in pictures)
    write_text(out / "results.md", f"# autoseg demo\n\n{table}\n{shown}")
    return f"{table}\n\n{show_seconds(seconds)} in all; results and pictures: {out / 'results.md'}"


def _rows(searched: Run, genotype: Genotype, result: Mapping[str, Any]) -> list[Row]:
    config = searched.config(SearchConfig)
    train, val = open_dataset(config.data, "train"), open_dataset(config.data, "val")
    task = SearchTask(config, train, val, pick_device(config.device))
    search_seconds = restore(task, searched)[1]["seconds"]
    supernet_miou = [row["miou"] for row in searched.metrics() if row["kind"] == "val"][-1]
    size = tuple(val.load(0).mask.shape)
    relaxed = count_cost(lambda: build_supernet(task.space, val.num_classes), (size[0], size[1]))
    discrete = count_cost(lambda: build_searched(genotype, val.num_classes), (size[0], size[1]))
    _, _, saved = load_network(result["run"])
    return [
        Row("always the commonest class", commonest_class(train, val).miou),
        Row("supernet", supernet_miou, relaxed.parameters, relaxed.multiply_adds, search_seconds),
        Row("decoded, with the supernet's weights", evaluate_discretized(task, genotype).miou),
        Row("retrained", result["miou"], discrete.parameters, discrete.multiply_adds, saved["seconds"]),
    ]


def evaluate_discretized(task: SearchTask, genotype: Genotype) -> Scores:
    """Scores on val of the supernet reduced to `genotype`. The supernet of `task` stays reduced.

    BatchNorm statistics are computed anew on trainA, since those of the relaxed network do not hold.
    """
    supernet = task.supernet
    supernet.choose(genotype)
    norms = [module for module in supernet.modules() if isinstance(module, StackedNorm)]
    for norm in norms:
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
    supernet.train()
    with torch.no_grad():
        for images, _ in itertools.islice(task.loader_a.epoch(0), CALIBRATION_BATCHES):
            supernet(images.to(task.device))
    scores, _ = evaluate_network(
        supernet, task.val_set, task.config.data, task.device, batch_size=task.schedule.batch_size
    )
    return scores


def commonest_class(train: SegmentationDataset, val: SegmentationDataset) -> Scores:
    """Scores on `val` of a network that always predicts the commonest class of `train`."""
    counts = count_classes(val).pixels
    confusion = np.zeros((len(counts), len(counts)), dtype=np.int64)
    confusion[:, int(count_classes(train).pixels.argmax())] = counts
    return Scores(confusion, val.classes)


def _table(rows: list[Row]) -> str:
    lines = ["| network | val mIoU | parameters | multiply-adds | time |", "|---|---|---|---|---|"]
    for row in rows:
        parameters = f"{row.parameters / 1e6:.2f}M" if row.parameters else ""
        products = f"{row.multiply_adds / 1e6:.0f}M" if row.multiply_adds else ""
        seconds = show_seconds(row.seconds) if row.seconds else ""
        lines.append(f"| {row.network} | {row.miou:.3f} | {parameters} | {products} | {seconds} |")
    return "\n".join(lines)


def _draw_pictures(run: Path, folder: Path) -> list[Path]:
    """Draw some images of val with their masks and the network's predictions."""
    network, config, _ = load_network(run)
    data = config.data
    val = open_dataset(data, "val")
    samples = [val.load(index) for index in range(min(PICTURES, len(val)))]
    predictions = [label_map(network, sample.image, data, torch.device("cpu")) for sample in samples]
    figure = draw_predictions(
        [sample.image for sample in samples], [sample.mask for sample in samples], predictions,
        palette(val.num_classes), val.classes, val.ignore_label,
    )  # fmt: skip
    return save(figure, folder / "predictions")
