"""Search, decode, retrain and evaluate on CamVid at 480x360, with schedules cut to the time."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.engine.run_directory import Run
from autoseg.errors import RunError
from gpu.output import PACKED, ROOT, Output, in_one_line, refuse, stage_parser, table
from gpu.supervisor import Child, Event

SECONDS = 300.0
DRY_SECONDS = 120.0
LEAST_SECONDS = 60.0
RESERVE_SECONDS = 5.0
"""Before the hard limit, what the child is told is the end."""
MIRROR_SECONDS = 2.0
PARTS = ("train", "trainannot", "val", "valannot")
METRICS = "metrics.jsonl"
RUNS = {"search": "search", "retrain": "net"}
"""Name of a run in the metrics -> its folder in the work folder."""
FILES = ("camvid.json", METRICS, "genotype.yaml", "trellis.png", "predictions.png", "weights.safetensors", "log.txt")
"""One less than there may be, for what earlier stages left."""
SEARCH_MS, RETRAIN_MS, START_ESTIMATE = 120.0, 60.0, 25.0
"""For the estimate: an iteration of the search and a step of the retraining on a card, starting and measuring."""


class NoCardError(Exception):
    """torch finds no GPU."""


class Stage:
    """Runs the pipeline in a process, writes `camvid.json` after each phase and copies what is small meanwhile."""

    def __init__(self, output: Output, work: Path, seconds: float, dry: bool) -> None:
        self.output, self.work, self.seconds, self.dry = output, work, seconds, dry
        self.began = time.time()
        self.environment: dict[str, Any] = {}
        self.phases: list[Event] = []
        self.running: str | None = None
        self.notes: list[str] = []

    def run(self, space: str, data: Path | None) -> None:
        """From the search to the pictures, or as far as the time goes."""
        end = self.began + self.seconds
        command = [sys.executable, "-X", "faulthandler", "-m", "gpu.camvid_child", "--space", space]
        command += ["--work", str(self.work), "--out", str(self.output.folder), *(["--dry"] if self.dry else [])]
        command += ["--data", str(data)] if data is not None else []
        command += ["--began", str(self.began), "--end", str(end - RESERVE_SECONDS)]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.dry else {}
        with tempfile.TemporaryDirectory() as folder:
            events = Path(folder) / "events.jsonl"
            given = [*command, "--events", str(events), "--state", str(events)]
            child = Child(given, events, self.output.path("log.txt"), hidden)
            try:
                self._follow(child, end)
            finally:
                child.kill()
        self._mirror()
        self.write()

    def _follow(self, child: Child, end: float) -> None:
        mirrored = 0.0
        while True:
            status = child.process.poll()
            for event in child.new_events():
                self.take(event)
            if status is not None or time.time() >= end:
                break
            if time.time() - mirrored > MIRROR_SECONDS:
                self._mirror()
                mirrored = time.time()
            time.sleep(0.05)
        if status is None:
            self.notes.append(f"the time was over while: {self.running or 'starting'}")
        elif status != 0:
            self.notes.append(
                f"the process ended with status {status} while: {self.running or 'starting'}; see log.txt"
            )

    def _mirror(self) -> None:
        """Write what both runs have logged so far, each row with the name of its run."""
        lines = [
            json.dumps({"run": name, **row}) + "\n"
            for name, folder in RUNS.items()
            if (self.work / folder / "metrics.jsonl").is_file()
            for row in Run(self.work / folder).metrics()
        ]
        if lines:
            self.output.text(METRICS, "".join(lines))

    def take(self, event: Event) -> None:
        """Keep what came, print a line, write the file."""
        kind = event.pop("event")
        if kind == "environment":
            self.environment = event
            if not event["cuda"] and not self.dry:
                raise NoCardError
        elif kind == "start":
            self.running = event["name"]
        elif kind == "end":
            self.running = None
            self.phases.append(event)
            print(f"{event['name']:<12} {event['outcome']:<7} {event['seconds']:7.1f} s  {essence(event)}", flush=True)
        self.write()

    def write(self) -> None:
        """camvid.json as of now."""
        data = {
            "stage": "camvid",
            "dry": self.dry,
            "seconds": round(time.time() - self.began, 1),
            "environment": self.environment,
            "work": str(self.work),
            "phases": self.phases,
            "running": self.running,
            "notes": self.notes,
        }
        self.output.json("camvid.json", data)


def essence(phase: Event) -> str:
    """What a phase found, in a line."""
    if phase["outcome"] != "done":
        return str(phase["reason"])[:300]
    parts = [f"{key} {phase[key]:.1f}" for key in ("iteration_ms", "step_ms") if key in phase]
    if "schedule" in phase:
        parts.append(f"{phase['schedule']['epochs']} epochs")
    if phase.get("finished") is False:
        parts.append("stopped as its time was over")
    if "last_val" in phase:
        parts.append(f"val mIoU {phase['last_val']['miou']:.3f}")
    if "scores" in phase:
        scores = phase["scores"]
        parts.append(f"mIoU {scores['miou']:.4f} on {scores['images']} images, {phase['parameters']:,} parameters")
        parts.append(f"after {phase['epochs_trained']} of {phase['epochs_planned']} epochs")
    parts += [f"{key} {phase[key]}" for key in ("strides", "dtype", "bytes", "left_out") if key in phase]
    return ", ".join(parts)


def scores_table(phases: Sequence[Event]) -> str:
    """IoU by class."""
    found = next((phase["scores"] for phase in phases if "scores" in phase), None)
    if found is None:
        return ""
    return "\n" + table(("class", "IoU"), [(name, value) for name, value in found["iou"].items()])


def estimate(seconds: float, train_images: int) -> str:
    """What the stage would take on a card."""
    search, retrain = 0.35 * seconds - START_ESTIMATE, 0.55 * seconds - START_ESTIMATE / 2
    epochs = int(0.85 * search / (train_images // 2 // 6 * SEARCH_MS / 1000))
    trained = int(0.85 * retrain / (train_images // 8 * RETRAIN_MS / 1000))
    return (
        f"on a card: {seconds:g} s = 35% search + 55% retraining + 10% rest; at {SEARCH_MS:g} ms an iteration and"
        f" {RETRAIN_MS:g} ms a step, which are guesses, {search:.0f} s x 0.85 / ({train_images // 2 // 6} x"
        f" {SEARCH_MS / 1000:g} s) = {epochs} epochs of search and {retrain:.0f} s x 0.85 / ({train_images // 8} x"
        f" {RETRAIN_MS / 1000:g} s) = {trained} epochs of retraining"
    )


def work_folder(given: Path | None, resume: bool, root: Path = ROOT) -> Path:
    """Where the runs go: the folder that is given, or the first free runs/gpu-camvid-N; to resume, the last used one.

    Raises: FileExistsError: the given one holds runs already. FileNotFoundError: nothing to resume.
    """
    places = sorted((root / "runs").glob("gpu-camvid-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if resume:
        chosen = given or (places[-1] if places else None)
        if chosen is None or not (chosen / "search" / "config.yaml").is_file():
            raise FileNotFoundError(f"--resume: {chosen or 'runs'} holds no search to go on with")
        return chosen.resolve()
    number = int(places[-1].name.rpartition("-")[2]) + 1 if places else 0
    chosen = given or root / "runs" / f"gpu-camvid-{number}"
    if chosen.exists() and (not chosen.is_dir() or any(chosen.iterdir())):
        raise FileExistsError(f"--work {chosen} is not an empty folder; give another one, or --resume to go on with it")
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen.resolve()


def data_folder(given: Path | None, dry: bool) -> Path | None:
    """CamVid; None for generated images. Raises: FileNotFoundError: it is not there."""
    folder = given or PACKED / "camvid"
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not missing:
        return folder.resolve()
    if dry and given is None:
        return None
    raise FileNotFoundError(
        f"{folder} has no folder {missing[0]}; run scripts/gpu/pack.sh, or give --data CAMVID_FOLDER"
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Those of the stage. A wrong one ends the process with status 2."""
    parser = stage_parser("camvid", SECONDS, __doc__ or "")
    parser.add_argument("--space", default="fast", help="search space: fast, auto_deeplab or another (default: fast)")
    parser.add_argument("--data", type=Path, help="CamVid folder (default: .gpu/camvid, which pack.sh makes)")
    parser.add_argument("--work", type=Path, help="folder for the runs (default: runs/gpu-camvid-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the runs there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where the stage ran, 2 for what was given wrong, 1 where a dry run fails."""
    options = parse_arguments(arguments)
    if options.seconds < LEAST_SECONDS and not options.dry:
        return refuse(f"--seconds {options.seconds:g} is too short for a search and a retraining; give at least 60")
    try:
        data = data_folder(options.data, options.dry)
        work = work_folder(options.work, options.resume)
        stage = Stage(Output(FILES), work, DRY_SECONDS if options.dry else options.seconds, options.dry)
        stage.run(options.space, data)
    except NoCardError:
        return refuse("torch finds no CUDA GPU here; --dry runs the stage in miniature on a CPU")
    except (OSError, RunError) as reason:
        return refuse(reason)
    print(f"\n{in_one_line(stage.environment)}\n{scores_table(stage.phases)}")
    print("\n".join([*stage.notes, f"written: {stage.output.folder}; runs: {stage.work}"]))
    if not options.dry:
        return 0
    print(estimate(options.seconds, 367))
    failed = [phase["name"] for phase in stage.phases if phase["outcome"] != "done"]
    return 1 if failed or stage.notes else 0


if __name__ == "__main__":
    sys.exit(main())
