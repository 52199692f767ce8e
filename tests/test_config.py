"""Settings: what is refused and in which words, and how files, assignments and defaults come together."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autoseg.config import (
    DataConfig,
    LrScheduleConfig,
    OptimizerConfig,
    RetrainConfig,
    RetrainSchedule,
    SearchConfig,
    SearchSchedule,
    data_settings,
)
from autoseg.errors import ConfigError, DataError, RunError
from autoseg.files import parse_yaml, read_yaml, to_yaml
from autoseg.settings import Settings, merge, parse, parse_assignments


def run(**changes: Any) -> dict[str, Any]:
    return {"space": {"name": "tiny"}, "data": {"layout": "generated"}, **changes}


def search(**changes: Any) -> dict[str, Any]:
    return run(search=changes)


def data(**changes: Any) -> dict[str, Any]:
    return run(data={"layout": "generated", **changes})


# --- messages ---------------------------------------------------------------------------------------------------------

WHOLE, NUMBER = "should be a valid integer", "should be a valid number"
CHOICES = "should be 'none', 'inverse', 'enet' or 'median_frequency', or a list"
TERMS = "cross_entropy, ohem, focal, boundary, dice, lovasz"

MISTAKES: list[tuple[dict[str, Any], str]] = [
    # keys
    (run(serach={}), "unknown key 'serach' (run.yaml) (did you mean 'search'?)"),
    (search(optimizer={"lrr": 1}), "unknown key 'lrr' in search.optimizer (run.yaml) (did you mean 'lr'?)"),
    (search(epoch=1), "unknown key 'epoch' in search (run.yaml) (did you mean 'epochs'?)"),
    (
        data(generated={"zzz": 1}),
        "unknown key 'zzz' in data.generated (run.yaml) (known: size, train, val, test, noise, seed)",
    ),
    (
        data(splits={"train": {"image": "a", "list": "b"}}),
        "unknown key 'image' in data.splits.train (run.yaml) (did you mean 'images'?)",
    ),
    ({"space": {}}, "data is missing (run.yaml); add it"),
    # whole numbers
    (search(epochs=2.5), f"search.epochs: {WHOLE}, not 2.5 (run.yaml)"),
    (search(epochs=2.0), f"search.epochs: {WHOLE}, not 2.0 (run.yaml)"),
    (search(epochs=True), f"search.epochs: {WHOLE}, not True (run.yaml)"),
    (search(epochs="3"), f"search.epochs: {WHOLE}, not '3' (run.yaml)"),
    (search(epochs=None), f"search.epochs: {WHOLE}, not None (run.yaml)"),
    (search(epochs=[3]), f"search.epochs: {WHOLE}, not [3] (run.yaml)"),
    (search(epochs=0), "search.epochs: should be greater than or equal to 1, not 0 (run.yaml)"),
    (search(val_images=True), f"search.val_images: {WHOLE}, not True (run.yaml)"),
    (data(num_classes="19"), f"data.num_classes: {WHOLE}, not '19' (run.yaml)"),
    (data(label_map={7: 1.5}), f"data.label_map.7: {WHOLE}, not 1.5 (run.yaml)"),
    (
        data(label_map={"road": 1}),
        f"data.label_map.road: {WHOLE}, unable to parse string as an integer, not 'road' (run.yaml)",
    ),
    (run(seed=-1), "seed: should be greater than or equal to 0, not -1 (run.yaml)"),
    (run(seed=2**31), "seed: should be less than 2147483648, not 2147483648 (run.yaml)"),
    # numbers
    (search(optimizer={"lr": "abc"}), f"search.optimizer.lr: {NUMBER}, not 'abc' (run.yaml)"),
    (search(optimizer={"lr": "0.1"}), f"search.optimizer.lr: {NUMBER}, not '0.1' (run.yaml)"),
    (search(optimizer={"lr": True}), f"search.optimizer.lr: {NUMBER}, not True (run.yaml)"),
    (search(optimizer={"lr": 0}), "search.optimizer.lr: should be greater than 0, not 0 (run.yaml)"),
    (
        search(optimizer={"lr": float("nan")}),
        "search.optimizer.lr: should be a finite number, not nan (run.yaml)",
    ),
    (search(optimizer={"nesterov": 1}), "search.optimizer.nesterov: should be a valid boolean, not 1 (run.yaml)"),
    (
        search(optimizer={"nesterov": "yes"}),
        "search.optimizer.nesterov: should be a valid boolean, not 'yes' (run.yaml)",
    ),
    # lists
    (search(crop=[31, 64]), "search.crop.0: should be greater than or equal to 32, not 31 (run.yaml)"),
    (search(crop=[64, "x"]), f"search.crop.1: {WHOLE}, not 'x' (run.yaml)"),
    (search(crop=[64]), "search.crop.1 is missing (run.yaml); add it"),
    (search(crop=[64, 64, 3]), "search.crop: should have at most 2 items, not 3 (run.yaml)"),
    (search(crop=64), "search.crop: should be a list, not 64 (run.yaml)"),
    (search(optimizer={"betas": [0.9, 1]}), "search.optimizer.betas.1: should be less than 1, not 1 (run.yaml)"),
    (data(std=[1, 1, 0]), "data.std: every value must be greater than 0 (run.yaml)"),
    (data(mean=["a", 1, 1]), f"data.mean.0: {NUMBER}, not 'a' (run.yaml)"),
    (data(resize=[64, 1.5]), f"data.resize.1: {WHOLE}, not 1.5 (run.yaml)"),
    # one of several types
    (search(class_weights="enett"), f"search.class_weights: {CHOICES}, not 'enett' (run.yaml)"),
    (search(class_weights=3), f"search.class_weights: {CHOICES}, not 3 (run.yaml)"),
    (search(class_weights=[1, "x"]), f"search.class_weights.1: {NUMBER}, not 'x' (run.yaml)"),
    (search(class_weights=[1, -1]), "search.class_weights.1: should be greater than or equal to 0, not -1 (run.yaml)"),
    (search(class_weights=[0, 0]), "search: class_weights needs at least one number greater than 0 (run.yaml)"),
    # terms of the loss
    (search(loss="dice"), "search.loss: should be a list, not 'dice' (run.yaml)"),
    (search(loss=[]), "search.loss: should have at least 1 item, not 0 (run.yaml)"),
    (search(loss=["dise"]), f"search.loss.0: 'name' should be one of {TERMS}, not 'dise' (run.yaml)"),
    (search(loss=["dice", {"weight": 1}]), f"search.loss.1: 'name' should be one of {TERMS}, not None (run.yaml)"),
    (search(loss=[3]), "search.loss.0: should be the name of a term or a mapping with one, not 3 (run.yaml)"),
    (
        search(loss=[{"name": "dice", "gamma": 2}]),
        "unknown key 'gamma' in search.loss.0 (run.yaml) (known: name, weight, smooth)",
    ),
    (
        search(loss=[{"name": "ohem", "min_keep": 2}]),
        "unknown key 'min_keep' in search.loss.0 (run.yaml) (did you mean 'min_kept'?)",
    ),
    (
        search(loss=[{"name": "ohem", "keep": 2}]),
        "search.loss.0.keep: should be less than or equal to 1, not 2 (run.yaml)",
    ),
    (search(loss=[{"name": "ohem", "min_kept": 0.5}]), f"search.loss.0.min_kept: {WHOLE}, not 0.5 (run.yaml)"),
    (search(loss=[{"name": "focal", "weight": 0}]), "search.loss.0.weight: should be greater than 0, not 0 (run.yaml)"),
    (
        search(loss=["dice"], label_smoothing=0.1),
        "search: label_smoothing is for the terms cross_entropy, ohem, boundary, of which the loss has none (run.yaml)",
    ),
    # augmentation and sampling
    (search(augment={"rotate": 181}), "search.augment.rotate: should be less than or equal to 180, not 181 (run.yaml)"),
    (search(augment={"blur": 2}), "search.augment.blur: should be less than or equal to 1, not 2 (run.yaml)"),
    (
        search(augment={"blur_sigma": [2, 1]}),
        "search.augment: blur_sigma must be [least, greatest], not [2.0, 1.0] (run.yaml)",
    ),
    (
        search(augment={"cutout_size": [0.5, 1]}),
        "search.augment.cutout_size.1: should be less than 1, not 1 (run.yaml)",
    ),
    (
        search(augment={"max_class_share": 0}),
        "search.augment.max_class_share: should be greater than 0, not 0 (run.yaml)",
    ),
    (search(balanced_sampling=-1), "search.balanced_sampling: should be greater than or equal to 0, not -1 (run.yaml)"),
    # choices and mappings
    (search(precision="fp8"), "search.precision: should be 'float32', 'bf16' or 'fp16', not 'fp8' (run.yaml)"),
    (search(optimizer="sgd"), "search.optimizer: should be a mapping, not 'sgd' (run.yaml)"),
    (run(search=None), "search: should be a mapping, not None (run.yaml)"),
    (run(device="tpu"), "device: should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not 'tpu' (run.yaml)"),
    (run(space="tiny"), "space: should be a mapping, not 'tiny' (run.yaml)"),
    (data(splits={"val": 3}), "data.splits.val: should be a mapping, not 3 (run.yaml)"),
    # several settings that disagree
    (
        search(epochs=5),
        "search: arch_start_epoch is 20, but there are only 5 epochs, so the architecture would never be searched;"
        " lower arch_start_epoch (run.yaml)",
    ),
    (search(augment={"scale": [2, 1]}), "search.augment: scale must be [least, greatest], not [2.0, 1.0] (run.yaml)"),
    (
        run(data={"num_classes": 3, "classes": ["a", "b"], "layout": "generated"}),
        "data: num_classes is 3, but 'classes' has 2 names (run.yaml)",
    ),
    (data(classes=["a"]), "data: 'classes' needs at least two names (run.yaml)"),
    (run(data={}), "data: needs 'root', the folder of the data set (or layout: generated) (run.yaml)"),
    (
        data(splits={"val": {"images": "x"}}),
        "data.splits.val: needs either 'list' or both 'images' and 'masks' (run.yaml)",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), MISTAKES, ids=[case[1][:60] for case in MISTAKES])
def test_a_mistake_gets_exactly_this_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SearchConfig, wrong, "run.yaml")
    assert str(caught.value) == message


def test_no_message_shows_names_of_pydantic() -> None:
    for wrong, _ in MISTAKES:
        with pytest.raises(ConfigError) as caught:
            parse(SearchConfig, wrong)
        message = str(caught.value)
        assert not any(word in message for word in ("literal[", "tuple", "constrained", "[key]", "dict", "pydantic"))


def test_long_values_are_cut_and_lines_joined() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SearchConfig, search(optimizer={"name": "x" * 500}))
    assert len(str(caught.value)) < 160
    with pytest.raises(ConfigError) as caught:
        parse(SearchConfig, {"a\nb": 1, **run()})
    assert "\n" not in str(caught.value)


def test_the_kind_of_error_and_the_place_are_the_caller_s() -> None:
    with pytest.raises(RunError, match=r"^lr: should be a valid number, not 'x' \(runs/a/config\.yaml\)$"):
        parse(OptimizerConfig, {"lr": "x"}, "runs/a/config.yaml", RunError)
    with pytest.raises(ConfigError, match=r"^lr: should be a valid number, not 'x'$"):
        parse(OptimizerConfig, {"lr": "x"})


class _Part(Settings):
    size: int = 1


class _Mixed(Settings):
    """Types within types, more than today's settings have."""

    either: _Part | list[_Part] | None = None
    table: dict[str, tuple[_Part, ...]] = {}  # noqa: RUF012
    maybe: tuple[int, str] | None = None


@pytest.mark.parametrize(
    ("wrong", "start"),
    [
        ({"either": {"sise": 1}}, "unknown key 'sise' in either (did you mean 'size'?)"),
        ({"either": [{"size": 1}, {"sise": 1}]}, "unknown key 'sise' in either.1 (did you mean 'size'?)"),
        ({"either": [{"size": 1}, {"size": "x"}]}, "either.1.size: should be a valid integer"),
        ({"either": 3}, "either: should be a mapping, or a list, not 3"),
        ({"table": {"a": [{}, {"sise": 1}]}}, "unknown key 'sise' in table.a.1 (did you mean 'size'?)"),
        ({"table": {"a": [{}, {"size": "x"}]}}, "table.a.1.size: should be a valid integer"),
        ({"maybe": [1, 2]}, "maybe.1: should be a valid string, not 2"),
    ],
)
def test_places_inside_unions_lists_and_mappings_are_readable(wrong: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(_Mixed, wrong)
    assert str(caught.value).startswith(start)


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    config = parse(SearchConfig, search(crop=[64, 96], optimizer={"lr": 1}, class_weights=[1, 2.5]))
    assert config.search.crop == (64, 96)
    assert isinstance(config.search.optimizer.lr, float)
    assert config.search.class_weights == (1.0, 2.5)
    assert all(isinstance(weight, float) for weight in config.search.class_weights)
    assert parse(DataConfig, {"root": "x", "mean": [0, 0, 0]}).mean == (0.0, 0.0, 0.0)


def test_label_map_takes_keys_as_assignments_and_json_write_them() -> None:
    assert parse(DataConfig, {"root": "x", "label_map": {"7": 0, 8: 255}}).label_map == {7: 0, 8: 255}


def test_settings_are_frozen() -> None:
    config = parse(SearchConfig, run())
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.search.optimizer.lr = 3.0  # type: ignore[misc]
    assert config == parse(SearchConfig, run())


def test_the_search_defaults_are_the_paper_s() -> None:
    schedule = SearchSchedule()
    assert (schedule.epochs, schedule.arch_start_epoch, schedule.batch_size, schedule.crop) == (40, 20, 2, (321, 321))
    assert schedule.optimizer == OptimizerConfig(name="sgd", lr=0.025, momentum=0.9, weight_decay=3e-4)
    assert schedule.schedule == LrScheduleConfig(name="cosine", min_lr=1e-3)
    assert (schedule.arch_optimizer.name, schedule.arch_optimizer.lr) == ("adam", 3e-3)
    assert schedule.arch_optimizer.weight_decay == 1e-3


def test_schedules_that_are_partly_given_keep_the_other_defaults() -> None:
    schedule = parse(RetrainSchedule, {"optimizer": {"lr": 0.1}})
    assert schedule.optimizer.lr == 0.1
    assert schedule.schedule.name == "poly"


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
                    "root": "1e5",
                    "classes": ["yes", "null", "12", "1e3"],
                    "label_map": {7: 0, -1: 255},
                    "splits": {"train": {"list": "a.txt"}, "val": {"images": "i", "masks": "m"}},
                    "resize": [64, 96],
                },
                search={"epochs": 3, "arch_start_epoch": 1, "class_weights": [1, 2, 3, 1e-7], "clip_grad_norm": 5},
                seed=7,
            ),
        ),
        parse(
            RetrainConfig, {"genotype": {"name": "g"}, "data": {"layout": "generated"}, "retrain": {"drop_path": 0.2}}
        ),
    ],
    ids=["search defaults", "search", "retrain"],
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
            "data.classes=",
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
    with pytest.raises(ConfigError) as caught:
        parse_assignments(["seed=1", wrong])
    assert str(caught.value) == f"--set {wrong}: write it as key.sub=value"


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1", "'x", "a: b: c", "[" * 3000])
def test_assignments_of_what_is_no_yaml_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a YAML value") as caught:
        parse_assignments([f"seed={text}"])
    assert "\n" not in str(caught.value)


def test_assignments_reach_every_setting_of_a_run() -> None:
    settings = merge(
        run(), parse_assignments(["search.class_weights=[1, 2]", "data.generated.size=[64, 64]", "seed=5"])
    )
    config = parse(SearchConfig, settings)
    assert config.search.class_weights == (1, 2)
    assert config.data.generated.size == (64, 64)
    assert config.seed == 5
    with pytest.raises(ConfigError, match=r"^search\.epochs: should be a valid integer, not 'many' \(--set\)$"):
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


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_generated_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_settings("generated") == {"layout": "generated"}
    assert parse(DataConfig, data_settings("generated")).generated.size == (96, 96)
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_settings("set") == {"layout": "auto", "root": str(tmp_path / "set")}  # absolute, for runs/a/config.yaml
    assert parse(DataConfig, data_settings(tmp_path / "set")).root == str(tmp_path / "set")


def test_data_yaml_counts_a_relative_root_from_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("root: ../images\nnum_classes: 3\n")
    assert data_settings(path) == {"root": str(tmp_path / "images"), "num_classes": 3}
    path.write_text("root: /somewhere/else\n")
    assert data_settings(path) == {"root": "/somewhere/else"}


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none is no folder; give --data a folder of images and masks"):
        data_settings(tmp_path / "none")
    with pytest.raises(DataError, match=r"none\.yaml does not exist"):
        data_settings(tmp_path / "none.yaml")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png is no folder"):
        data_settings(tmp_path / "a.png")
