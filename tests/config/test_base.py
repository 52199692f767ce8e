"""Settings: what is refused and what is named, and how files, assignments and defaults come together."""

from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import raises_code
from helpers.tiny_runs import GENOTYPE
from pydantic import ValidationError

from autoseg.config.base import Settings, merge, parse, parse_assignments
from autoseg.config.data import DataConfig
from autoseg.config.training import OptimizerConfig
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.errors import ConfigError, RunError
from autoseg.files import parse_yaml, read_yaml, to_yaml

FOUND = {"layout": "generated", "classes": ["a", "b"], "num_classes": 2, "ignore_label": 255} | {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def run(**changes: Any) -> dict[str, Any]:
    return {"space": {"name": "tiny"}, "data": FOUND, **changes}


def search(**changes: Any) -> dict[str, Any]:
    return run(search=changes)


def data(**changes: Any) -> dict[str, Any]:
    return run(data={**FOUND, **changes})


# --- messages ---------------------------------------------------------------------------------------------------------

CHOICES = ("'none'", "'inverse'", "'enet'", "'median_frequency'")
TERMS = ("cross_entropy", "ohem", "focal", "boundary", "dice", "lovasz")
DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")
UNKNOWN, MISSING, INVALID = "unknown-setting", "setting-missing", "setting-invalid"

MISTAKES: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    # keys
    (run(serach={}), UNKNOWN, ("'serach'", "'search'")),
    (search(optimizer={"lrr": 1}), UNKNOWN, ("'lrr'", "search.optimizer", "'lr'")),
    (search(epoch=1), UNKNOWN, ("'epoch'", "search", "'epochs'")),
    (data(generated={"zzz": 1}), UNKNOWN, ("'zzz'", "data.generated", "size", "train", "val", "test", "noise", "seed")),
    (
        data(splits={"train": {"image": "a", "list": "b"}}),
        UNKNOWN,
        ("'image'", "data.splits.train", "'images'"),
    ),
    ({"space": {"name": "tiny"}}, MISSING, ("data",)),
    # whole numbers
    (search(epochs=2.5), INVALID, ("search.epochs", "2.5")),
    (search(epochs=2.0), INVALID, ("search.epochs", "2.0")),
    (search(epochs=True), INVALID, ("search.epochs", "True")),
    (search(epochs="3"), INVALID, ("search.epochs", "'3'")),
    (search(epochs=None), INVALID, ("search.epochs", "None")),
    (search(epochs=[3]), INVALID, ("search.epochs", "[3]")),
    (search(epochs=0), INVALID, ("search.epochs", "1", "0")),
    (search(val_images=True), INVALID, ("search.val_images", "True")),
    (data(num_classes="19"), INVALID, ("data.num_classes", "'19'")),
    (data(label_map={7: 1.5}), INVALID, ("data.label_map.7", "1.5")),
    (data(label_map={"road": 1}), INVALID, ("data.label_map.road", "'road'")),
    (run(seed=-1), INVALID, ("seed", "0", "-1")),
    (run(seed=2**31), INVALID, ("seed", "2147483648")),
    # numbers
    (search(optimizer={"lr": "abc"}), INVALID, ("search.optimizer.lr", "'abc'")),
    (search(optimizer={"lr": "0.1"}), INVALID, ("search.optimizer.lr", "'0.1'")),
    (search(optimizer={"lr": True}), INVALID, ("search.optimizer.lr", "True")),
    (search(optimizer={"lr": 0}), INVALID, ("search.optimizer.lr", "0")),
    (search(optimizer={"lr": float("nan")}), INVALID, ("search.optimizer.lr", "nan")),
    (search(optimizer={"nesterov": 1}), INVALID, ("search.optimizer.nesterov", "1")),
    (search(optimizer={"nesterov": "yes"}), INVALID, ("search.optimizer.nesterov", "'yes'")),
    # lists
    (search(crop=[31, 64]), INVALID, ("search.crop.0", "32", "31")),
    (search(crop=[64, "x"]), INVALID, ("search.crop.1", "'x'")),
    (search(crop=[64]), MISSING, ("search.crop.1",)),
    (search(crop=[64, 64, 3]), INVALID, ("search.crop", "2", "3")),
    (search(crop=64), INVALID, ("search.crop", "64")),
    (search(optimizer={"betas": [0.9, 1]}), INVALID, ("search.optimizer.betas.1", "1")),
    (data(std=[1, 1, 0]), INVALID, ("data.std", "0")),
    (data(mean=["a", 1, 1]), INVALID, ("data.mean.0", "'a'")),
    (data(resize=[64, 1.5]), INVALID, ("data.resize.1", "1.5")),
    # one of several types
    (search(class_weights="enett"), INVALID, ("search.class_weights", *CHOICES, "'enett'")),
    (search(class_weights=3), INVALID, ("search.class_weights", *CHOICES, "3")),
    (search(class_weights=[1, "x"]), INVALID, ("search.class_weights.1", "'x'")),
    (search(class_weights=[1, -1]), INVALID, ("search.class_weights.1", "0", "-1")),
    (search(class_weights=[0, 0]), INVALID, ("search", "class_weights", "0")),
    # terms of the loss
    (search(loss="dice"), INVALID, ("search.loss", "'dice'")),
    (search(loss=[]), INVALID, ("search.loss", "1", "0")),
    (search(loss=["dise"]), INVALID, ("search.loss.0", "'name'", *TERMS, "'dise'")),
    (search(loss=["dice", {"weight": 1}]), INVALID, ("search.loss.1", "'name'", *TERMS, "None")),
    (search(loss=[3]), INVALID, ("search.loss.0", "3")),
    (
        search(loss=[{"name": "dice", "gamma": 2}]),
        UNKNOWN,
        ("'gamma'", "search.loss.0", "name", "weight", "smooth"),
    ),
    (search(loss=[{"name": "ohem", "min_keep": 2}]), UNKNOWN, ("'min_keep'", "search.loss.0", "'min_kept'")),
    (search(loss=[{"name": "ohem", "keep": 2}]), INVALID, ("search.loss.0.keep", "1", "2")),
    (search(loss=[{"name": "ohem", "min_kept": 0.5}]), INVALID, ("search.loss.0.min_kept", "0.5")),
    (search(loss=[{"name": "focal", "weight": 0}]), INVALID, ("search.loss.0.weight", "0")),
    (
        search(loss=["dice"], label_smoothing=0.1),
        INVALID,
        ("search", "label_smoothing", "cross_entropy", "ohem", "boundary"),
    ),
    # augmentation and sampling
    (search(augment={"rotate": 181}), INVALID, ("search.augment.rotate", "180", "181")),
    (search(augment={"blur": 2}), INVALID, ("search.augment.blur", "1", "2")),
    (search(augment={"blur_sigma": [2, 1]}), INVALID, ("search.augment", "blur_sigma", "[2.0, 1.0]")),
    (search(augment={"cutout_size": [0.5, 1]}), INVALID, ("search.augment.cutout_size.1", "1")),
    (search(augment={"max_class_share": 0}), INVALID, ("search.augment.max_class_share", "0")),
    (search(balanced_sampling=-1), INVALID, ("search.balanced_sampling", "0", "-1")),
    # choices and mappings
    (search(precision="fp8"), INVALID, ("search.precision", "'float32'", "'bf16'", "'fp16'", "'fp8'")),
    (search(optimizer="sgd"), INVALID, ("search.optimizer", "'sgd'")),
    (run(search=None), INVALID, ("search", "None")),
    (run(device="tpu"), INVALID, ("device", *DEVICES, "'tpu'")),
    (run(space="tiny"), INVALID, ("space", "'tiny'")),
    (data(splits={"val": 3}), INVALID, ("data.splits.val", "3")),
    # several settings that disagree
    (search(epochs=5), INVALID, ("search", "arch_start_epoch", "20", "5 epochs")),
    (search(augment={"scale": [2, 1]}), INVALID, ("search.augment", "scale", "[2.0, 1.0]")),
    (
        data(num_classes=3),
        INVALID,
        ("data", "num_classes", "3", "'classes'", "2"),
    ),
    (data(classes=["a"]), INVALID, ("data", "'classes'", "two")),
    (data(layout="folder"), INVALID, ("data", "'root'", "layout: generated")),
    (data(layout="folder", root="x"), INVALID, ("data", "'splits'")),
    (data(layout="auto", root="x"), INVALID, ("data", "'layout'")),
    (data(channels=None), INVALID, ("data.channels", "None")),
    (run(data={"layout": "generated"}), MISSING, ("data.classes",)),
    (data(splits={"val": {"images": "x"}}), INVALID, ("data.splits.val", "'list'", "'images'", "'masks'")),
]


@pytest.mark.parametrize(("wrong", "code", "named"), MISTAKES, ids=["-".join(case[2])[:60] for case in MISTAKES])
def test_a_mistake_is_named(wrong: dict[str, Any], code: str, named: tuple[str, ...]) -> None:
    with raises_code(ConfigError, code, "run.yaml", *named):
        parse(SearchConfig, wrong, "run.yaml")


def test_no_message_shows_names_of_pydantic() -> None:
    for wrong, _, _ in MISTAKES:
        with pytest.raises(ConfigError) as caught:
            parse(SearchConfig, wrong)
        message = str(caught.value)
        assert not any(word in message for word in ("literal[", "tuple", "constrained", "[key]", "dict", "pydantic"))


def test_long_values_are_cut_and_lines_joined() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SearchConfig, search(optimizer={"name": "x" * 500}))
    assert len(str(caught.value)) < 160
    with raises_code(ConfigError, UNKNOWN, "a b"):
        parse(SearchConfig, {"a\nb": 1, **run()})


def test_the_kind_of_error_and_the_place_are_the_caller_s() -> None:
    with raises_code(RunError, INVALID, "lr", "'x'", "runs/a/config.yaml"):
        parse(OptimizerConfig, {"lr": "x"}, "runs/a/config.yaml", RunError)
    with raises_code(ConfigError, INVALID, "lr", "'x'") as caught:
        parse(OptimizerConfig, {"lr": "x"})
    assert "(" not in str(caught.value)  # no place was given


class _Part(Settings):
    size: int = 1


class _Mixed(Settings):
    """Types within types, more than today's settings have."""

    either: _Part | list[_Part] | None = None
    table: dict[str, tuple[_Part, ...]] = {}  # noqa: RUF012
    maybe: tuple[int, str] | None = None


@pytest.mark.parametrize(
    ("wrong", "code", "named"),
    [
        ({"either": {"sise": 1}}, UNKNOWN, ("'sise'", "either", "'size'")),
        ({"either": [{"size": 1}, {"sise": 1}]}, UNKNOWN, ("'sise'", "either.1", "'size'")),
        ({"either": [{"size": 1}, {"size": "x"}]}, INVALID, ("either.1.size", "'x'")),
        ({"either": 3}, INVALID, ("either", "mapping", "list", "3")),
        ({"table": {"a": [{}, {"sise": 1}]}}, UNKNOWN, ("'sise'", "table.a.1", "'size'")),
        ({"table": {"a": [{}, {"size": "x"}]}}, INVALID, ("table.a.1.size", "'x'")),
        ({"maybe": [1, 2]}, INVALID, ("maybe.1", "2")),
    ],
)
def test_places_inside_unions_lists_and_mappings_are_readable(
    wrong: dict[str, Any], code: str, named: tuple[str, ...]
) -> None:
    with raises_code(ConfigError, code, *named):
        parse(_Mixed, wrong)


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    config = parse(SearchConfig, search(crop=[64, 96], optimizer={"lr": 1}, class_weights=[1, 2.5]))
    assert config.search.crop == (64, 96)
    assert isinstance(config.search.optimizer.lr, float)
    assert config.search.class_weights == (1.0, 2.5)
    assert all(isinstance(weight, float) for weight in config.search.class_weights)
    assert parse(DataConfig, {"root": "x", "mean": [0, 0, 0]}).mean == (0.0, 0.0, 0.0)


def test_settings_are_frozen() -> None:
    config = parse(SearchConfig, run())
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.search.optimizer.lr = 3.0  # type: ignore[misc]
    assert config == parse(SearchConfig, run())


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        parse(SearchConfig, run()),
        parse(
            SearchConfig,
            run(
                space={"name": "3e-3", "network": {"strides": [4, 8]}},
                data={
                    **FOUND,
                    "layout": "list",
                    "root": "1e5",
                    "classes": ["yes", "null", "12", "1e3"],
                    "num_classes": 4,
                    "label_map": {7: 0, -1: 255},
                    "splits": {"train": {"list": "a.txt"}, "val": {"images": "i", "masks": "m"}},
                    "resize": [64, 96],
                },
                search={"epochs": 3, "arch_start_epoch": 1, "class_weights": [1, 2, 3, 1e-7], "clip_grad_norm": 5},
                seed=7,
            ),
        ),
        parse(RetrainConfig, {"genotype": GENOTYPE, "data": FOUND, "retrain": {"drop_path": 0.2}}),
        parse(RetrainConfig, {"network": {"name": "fcn8s"}, "data": FOUND, "weights": "w.pth"}),
    ],
    ids=["search defaults", "search", "retrain", "network"],
)
def test_a_config_survives_yaml(config: Settings, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(config.to_dict()))
    again = parse(type(config), read_yaml(tmp_path / "config.yaml", ConfigError))
    assert again == config
    assert again.to_dict() == config.to_dict()


def test_3e_3_in_a_file_is_a_number() -> None:
    config = parse(OptimizerConfig, parse_yaml("{lr: 3e-3, weight_decay: 1e-3}"))
    assert (config.lr, config.weight_decay) == (0.003, 0.001)


# --- assignments ------------------------------------------------------------------------------------------------------


def test_assignments_nest_and_values_are_yaml() -> None:
    assert parse_assignments(
        [
            "search.optimizer.lr=3e-3",
            "search.crop=[64, 96]",
            "search.optimizer.name=adam",
            "seed=3",
            "search.val_images=null",
            "data.root=a=b",
            "search.optimizer.nesterov=true",
            "data.classes=null",
        ]
    ) == {
        "search": {
            "optimizer": {"lr": 0.003, "name": "adam", "nesterov": True},
            "crop": [64, 96],
            "val_images": None,
        },
        "seed": 3,
        "data": {"root": "a=b", "classes": None},
    }
    assert parse_assignments([]) == {}
    assert parse_assignments(["a=1", "a=2", " a =3"]) == {"a": 3}


@pytest.mark.parametrize("wrong", ["seed", "=3", "search..lr=3", ".lr=3", "search.=3", ""])
def test_assignments_without_key_or_value_are_refused(wrong: str) -> None:
    with raises_code(ConfigError, "assignment-invalid", f"--set {wrong}", "key.sub=value"):
        parse_assignments(["seed=1", wrong])


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[1, 2", "{a: 1", "'x", "a: b: c", "[" * 3000])
def test_assignments_of_what_is_no_yaml_are_refused(text: str) -> None:
    with raises_code(ConfigError, "assignment-value-unreadable", f"--set seed={text[:50]}"):
        parse_assignments([f"seed={text}"])


def test_assignments_reach_every_setting_of_a_run() -> None:
    settings = merge(
        run(), parse_assignments(["search.class_weights=[1, 2]", "data.generated.size=[64, 64]", "seed=5"])
    )
    config = parse(SearchConfig, settings)
    assert config.search.class_weights == (1, 2)
    assert config.data.generated.size == (64, 64)
    assert config.seed == 5
    with raises_code(ConfigError, INVALID, "search.epochs", "'many'", "--set"):
        parse(SearchConfig, merge(run(), parse_assignments(["search.epochs=many"])), "--set")


# --- merging ----------------------------------------------------------------------------------------------------------


def test_merge_goes_into_mappings_and_replaces_the_rest() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    override = {"a": {"y": [3], "w": 4}, "b": {"new": 1}, "c": None}
    assert merge(base, override) == {"a": {"x": 1, "y": [3], "w": 4}, "b": {"new": 1}, "c": None}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    assert override == {"a": {"y": [3], "w": 4}, "b": {"new": 1}, "c": None}


def test_the_last_of_several_overrides_wins() -> None:
    assert merge({"a": 1}, {"a": 2, "b": {"x": 1}}, {"a": 3, "b": {"y": 2}}) == {"a": 3, "b": {"x": 1, "y": 2}}
    assert merge({}) == {}


def test_a_copy_derives_anew_what_was_derived_from_the_old_values() -> None:
    class Square(Settings):
        side: int

        @cached_property
        def area(self) -> int:
            return self.side**2

    one = Square(side=2)
    assert one.area == 4
    assert one.model_copy(update={"side": 3}).area == 9
    assert one.model_copy().area == one.area == 4
