"""Searches, decodes, retrains and evaluates within a time; started by `gpu/camvid.py`, to which it writes events."""

from __future__ import annotations

import gc
import itertools
import math
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import compare_predictions
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import autoseg
from autoseg.config.base import merge
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.cache import keep_samples
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.environment import pick_device
from autoseg.engine.evaluate import spaced
from autoseg.engine.predict import load_network
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.engine.search import SearchTask
from autoseg.errors import AutosegError, Interrupted
from autoseg.files import read_yaml, write_atomically
from autoseg.planning.time import WARM_UP
from autoseg.setup.settings import retrain_config, retrain_sources, search_config, search_sources
from gpu.bench_rows import DRY_SPACE
from gpu.environment import describe
from gpu.output import MOST_BYTES
from gpu.supervisor import Events, child_parser, end_with_parent

SEARCH_SHARE, RETRAIN_SHARE = 0.35, 0.9
"""Of the time, until when the search and the retraining may go on; what they need for measuring counts."""
SAFETY = 0.85
"""Of the time left, what a schedule is made for: validation, reading and saving take theirs too."""
MEASURED_STEPS, EXTRA_WARM_UP = 8, 2
VAL_IMAGES = 25
"""Of a validation on the way; `evaluate` takes all."""
SHOWN_IMAGES = 3
MOST_EPOCHS = {"search": 60, "retrain": 400}
DRY_EPOCHS, DRY_STEPS = 2, 3
TINY = {"layout": "generated", "generated": {"size": [48, 64], "train": 8, "val": 4}}
DRY_CROP, DRY_SIZE = [48, 64], [48, 64]

SPACE_CHANGES: Mapping[str, Any] = {"decoder": {"filters": 128}, "decoding": {"path_prior": "uniform"}}
"""CamVid is small: half the decoder, so that the weights are small as well."""
SEARCH_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "fast": {"batch_size": 6, "optimizer": {"lr": 0.04}},
}
"""By space. 6 images of 321x321 are so few that their memory need not be predicted on a card of 80 GB."""
RETRAINING: Mapping[str, Any] = {
    "batch_size": 8,
    "crop": [360, 480],
    "augment": {"scale": [0.75, 1.5], "flip": 0.5, "colour": 0.3},
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-2},
    "schedule": {"name": "poly", "power": 0.9, "warmup_epochs": 1},
    "class_weights": "enet",
    "clip_grad_norm": 5.0,
    "ema_decay": 0.99,
    "drop_path": 0.0,
}
"""As in docs/results/camvid.yaml, at three times the size."""
BATCH_NORM = {"momentum": 0.1}
"""The paper's is for a million and a half steps."""


class Steps(NamedTuple):
    """A schedule that takes a time: epochs, and steps of each where they are fewer than the data has."""

    epochs: int
    max_steps: int | None


def cut(seconds: float, steps: int, step_seconds: float, most: int) -> Steps:
    """The schedule of at most `most` epochs of `steps` steps that takes `seconds`; at least two epochs, of one step."""
    epochs = math.floor(seconds / (steps * step_seconds))
    if epochs >= 2:
        return Steps(min(most, epochs), None)
    return Steps(2, min(steps, max(1, math.floor(seconds / (2 * step_seconds)))))


class Pipeline:
    """One search and what follows, in the directory `work`; what is small goes to `out`."""

    def __init__(
        self,
        space: str,
        data: Path | None,
        work: Path,
        out: Path,
        times: tuple[float, float],
        dry: bool,
        events: Events,
        search_share: float = SEARCH_SHARE,
        dry_epochs: int = DRY_EPOCHS,
    ) -> None:
        """data: None for generated images. times: the beginning and the end, in seconds since 1970."""
        self.space, self.work, self.out, self.dry, self.events = space, work, out, dry, events
        self.began, self.end = times
        self.search_share, self.dry_steps = search_share, Steps(dry_epochs, DRY_STEPS)
        self.device = pick_device("cpu" if dry else "auto")
        self.data: dict[str, Any] = dict(TINY) if data is None else {"layout": "auto", "root": str(data)}
        if dry and data is not None:
            self.data["resize"] = DRY_SIZE
        self.search_run, self.net_run = work / "search", work / "net"

    def run(self) -> None:
        """All phases."""
        self.phase("search", self.search)
        if self.phase("decode", self.decode):
            self.phase("trellis", self.trellis)
            self.phase("retrain", self.retrain)
        if (self.net_run / "checkpoints" / "last.pt").is_file():
            self.phase("evaluate", self.evaluate)
            self.phase("weights", self.weights)
            self.phase("predictions", self.predictions)

    def phase(self, name: str, work: Callable[[], dict[str, Any]]) -> bool:
        """Do one, and tell of it; whether it came to an end."""
        began = time.time()
        self.events("start", name=name)
        try:
            found = {"outcome": "done", **work()}
        except (Exception, KeyboardInterrupt) as reason:
            detail = traceback.format_exc()[-4000:]
            found = {"outcome": "failed", "reason": f"{type(reason).__name__}: {reason}"[:500], "detail": detail}
        self.events("end", name=name, seconds=time.time() - began, **found)
        return found["outcome"] == "done"

    def until(self, share: float) -> float:
        """When a share of the time is over."""
        return self.began + share * (self.end - self.began)

    # --- search -------------------------------------------------------------------------------------------------------

    def search(self) -> dict[str, Any]:
        """Measure the steps, cut the schedule to the time, search."""
        end = self.until(self.search_share)
        if (self.search_run / "config.yaml").is_file():
            finished = within(end, lambda: autoseg.search(out=self.search_run, resume=True))
            return {"resumed": True, "finished": finished, **_last(self.search_run, "val")}
        schedule: dict[str, Any] = {
            "precision": "float32" if self.dry else "bf16",
            "val_images": VAL_IMAGES,
            **SEARCH_CHANGES.get(self.space, {}),
        }
        space = merge(SPACE_CHANGES, DRY_SPACE) if self.dry else dict(SPACE_CHANGES)
        if self.dry:
            schedule |= {"crop": DRY_CROP, "batch_size": 2}
        config = self.search_config(space, schedule)
        seconds, alone = self.measured_search(config)
        late = 1 - config.search.arch_start_epoch / config.search.epochs
        images = int(len(open_dataset(config.data, "train")) * config.search.train_a_fraction)
        of_epoch = max(1, images // config.search.batch_size)
        mean = late * seconds + (1 - late) * alone
        steps = cut(SAFETY * (end - time.time()), of_epoch, mean, MOST_EPOCHS["search"])
        steps = self.dry_steps if self.dry else steps
        start = min(steps.epochs - 1, round(steps.epochs * (1 - late)))
        schedule |= {"epochs": steps.epochs, "arch_start_epoch": start, "validate_every": steps.epochs}
        schedule |= {} if steps.max_steps is None else {"max_steps_per_epoch": steps.max_steps}
        overrides = {"space": space, "search": schedule}
        finished = within(end, lambda: autoseg.search(self.space, self.data, self.search_run, overrides=overrides))
        return {
            "iteration_ms": 1000 * seconds,
            "weight_step_ms": 1000 * alone,
            "schedule": schedule,
            "finished": finished,
            "settings": Run.open(self.search_run).settings,
            **_last(self.search_run, "val"),
        }

    def search_config(self, space: Mapping[str, Any], schedule: Mapping[str, Any]) -> SearchConfig:
        """The settings of the search, but for its epochs."""
        return search_config(search_sources(self.space, self.data, overrides={"space": space, "search": schedule}))

    def measured_search(self, config: SearchConfig) -> tuple[float, float]:
        """Seconds of an iteration, and of one without the architecture, on the real data."""
        task = SearchTask(config, *self.datasets(config.data, config.search.store), self.device)
        late = config.search.arch_start_epoch
        found = self.seconds(task, late), self.seconds(task, 0) if late else 0.0
        del task
        self.free()
        return found

    def seconds(self, task: SearchTask | RetrainTask, epoch: int) -> float:
        """Seconds of one iteration of an epoch, which is begun anew as often as it takes."""
        warm_up = WARM_UP.get(self.device.type, 1) + (0 if self.dry else EXTRA_WARM_UP)
        measured, began = 1 if self.dry else MEASURED_STEPS, 0.0
        batches = itertools.chain.from_iterable(task.batches(epoch, 0) for _ in itertools.count())
        for number, batch in enumerate(itertools.islice(batches, warm_up + measured)):
            if number == warm_up:
                self.wait()
                began = time.perf_counter()
            task.step(batch, epoch, number % task.steps_per_epoch)
        self.wait()
        return (time.perf_counter() - began) / measured

    def datasets(self, data: DataConfig, store: Any) -> tuple[Any, Any]:
        """The training and the validation images; the former kept where a run would keep them."""
        train = open_dataset(data, "train")
        keep_samples(train, store, self.device)
        return train, open_dataset(data, "val")

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give back what a task had on the device, before a run makes its own."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # --- the rest -----------------------------------------------------------------------------------------------------

    def decode(self) -> dict[str, Any]:
        """The genotype of the last epoch that there is."""
        genotype = autoseg.decode(self.search_run, overwrite=True)
        shutil.copy(self.search_run / "genotype.yaml", self.out / "genotype.yaml")
        return {"strides": list(genotype.network.strides), "epoch": genotype.source["epoch"]}

    def retrain(self) -> dict[str, Any]:
        """Measure a step, cut the schedule to the time, train."""
        end = self.until(RETRAIN_SHARE)
        if (self.net_run / "config.yaml").is_file():
            finished = within(end, lambda: autoseg.retrain(out=self.net_run, resume=True))
            return {"resumed": True, "finished": finished, **_last(self.net_run, "val")}
        schedule = {**RETRAINING, "precision": "float32" if self.dry else "bf16"}
        genotype: dict[str, Any] = {"batch_norm": BATCH_NORM}
        if self.dry:
            schedule |= {"crop": DRY_CROP, "batch_size": 2}
            genotype["network"] = {"filter_multiplier": 4}
        settings = {"genotype": genotype, "retrain": schedule}
        config = retrain_config(retrain_sources(self.search_run / "genotype.yaml", self.data, overrides=settings))
        seconds = self.measured_training(config)
        of_epoch = max(1, len(open_dataset(config.data, "train")) // config.retrain.batch_size)
        steps = cut(SAFETY * (end - time.time()), of_epoch, seconds, MOST_EPOCHS["retrain"])
        steps = self.dry_steps if self.dry else steps
        schedule |= {"epochs": steps.epochs, "validate_every": math.ceil(steps.epochs / 2), "val_images": VAL_IMAGES}
        schedule |= {} if steps.max_steps is None else {"max_steps_per_epoch": steps.max_steps}
        source = self.search_run / "genotype.yaml"
        overrides = {"genotype": genotype, "retrain": schedule}
        finished = within(end, lambda: autoseg.retrain(source, self.data, self.net_run, overrides=overrides))
        return {
            "step_ms": 1000 * seconds,
            "schedule": schedule,
            "finished": finished,
            "settings": Run.open(self.net_run).settings,
            **_last(self.net_run, "val"),
        }

    def measured_training(self, config: RetrainConfig) -> float:
        """Seconds of a step on the real data."""
        task = RetrainTask(config, *self.datasets(config.data, config.retrain.store), self.device)
        found = self.seconds(task, 0)
        del task
        self.free()
        return found

    def evaluate(self) -> dict[str, Any]:
        """Scores of the last weights on all validation images, as `autoseg evaluate` gives them."""
        found = autoseg.evaluate(self.net_run, checkpoint="last", device=self.device.type, batch_size=4)
        network, _, saved = load_network(self.net_run, "last")
        parameters = sum(parameter.numel() for parameter in network.parameters())
        whole = read_yaml(self.net_run / "config.yaml", AutosegError)["retrain"]["epochs"]
        return {"parameters": parameters, "epochs_trained": saved["epoch"], "epochs_planned": whole, "scores": found}

    def weights(self) -> dict[str, Any]:
        """weights.safetensors, in half precision where they are too many otherwise."""
        whole, target = self.work / "weights.safetensors", self.out / "weights.safetensors"
        said = autoseg.export_model(self.net_run, whole, "safetensors", checkpoint="last", overwrite=True)
        if whole.stat().st_size <= MOST_BYTES:
            shutil.copy(whole, target)
            return {"dtype": "float32", "bytes": target.stat().st_size, "export": said}
        write_atomically(target, lambda temporary: halve(whole, temporary))
        size = target.stat().st_size
        if size > MOST_BYTES:
            target.unlink()
            return {"left_out": f"{size} bytes in float16 are more than {MOST_BYTES}; they are in {whole}"}
        return {"dtype": "float16", "bytes": size, "export": said}

    def predictions(self) -> dict[str, Any]:
        """predictions.png: label maps of some validation images beside the truth."""
        picture = self.out / "predictions.png"
        _, config, _ = load_network(self.net_run, "last")
        indices = ",".join(map(str, spaced(len(open_dataset(config.data, "val")), SHOWN_IMAGES)))
        status = compare_predictions.main([f"searched={self.net_run}", "--indices", indices, "--out", str(picture)])
        if status:
            raise RuntimeError("the pictures could not be drawn; log.txt says why")
        return {"bytes": picture.stat().st_size}

    def trellis(self) -> dict[str, Any]:
        """trellis.png: the search's trellis with the decoded path."""
        found = {path.name: path for path in autoseg.plot(self.search_run, formats=("png",))}
        shutil.copy(found["trellis.png"], self.out / "trellis.png")
        return {"bytes": (self.out / "trellis.png").stat().st_size}


TOO_LATE = "the time was over before the first step"


def within(end: float, work: Callable[[], Any]) -> bool:
    """Do some work, which Ctrl-C stops after a clean save, and stop it so at `end`; whether it was done before.

    Raises: Interrupted: it was stopped before it had anything to save.
    """

    def stop(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    left = end - time.time()
    if left <= 0:
        raise Interrupted(TOO_LATE)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        work()
    except Interrupted:
        return False
    except KeyboardInterrupt:
        raise Interrupted(TOO_LATE) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def _last(run: Path, kind: str) -> dict[str, Any]:
    """The last figures of a kind that a run has logged."""
    rows = [row for row in Run(run).metrics() if row["kind"] == kind]
    return {f"last_{kind}": rows[-1]} if rows else {}


def halve(source: Path, target: Path) -> None:
    """Write safetensors in float16, but for tensors that it cannot hold."""
    with safe_open(source, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    largest = torch.finfo(torch.float16).max
    small = {
        name: tensor.half() if tensor.is_floating_point() and float(tensor.abs().max()) < largest else tensor
        for name, tensor in tensors.items()
    }
    save_file(small, target, metadata)


def few_images(source: Path, target: Path) -> Path:
    """The first images and masks of a CamVid folder, as links in another folder; for a dry run."""
    for split, count in (("train", 8), ("val", 4)):
        for part in (split, f"{split}annot"):
            (target / part).mkdir(parents=True)
            for path in sorted((source / part).iterdir())[:count]:
                (target / part / path.name).symlink_to(path.resolve())
    return target


def main() -> int:
    """The exit status is 0, whatever the phases came to."""
    parser = child_parser(__doc__)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--space", required=True)
    parser.add_argument("--data", type=Path, help="a CamVid folder (default: generated images)")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--began", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--end", type=float, required=True)
    options = parser.parse_args()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    events = Events(options.events)
    events("environment", **describe())
    data = options.data
    if options.dry and data is not None:
        data = (
            options.work / "images" if (options.work / "images").is_dir() else few_images(data, options.work / "images")
        )
    times = options.began, options.end
    Pipeline(options.space, data, options.work, options.out, times, options.dry, events).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
