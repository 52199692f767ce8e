"""Groups: what `data.group_by` calls one, splits that keep them whole, and what is said of those that do not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import SEARCH, SPACE, call, search_settings, write_config
from PIL import Image

import autoseg
from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.check.report import DataReport, check_dataset
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
from autoseg.data.groups import suggestion
from autoseg.data.loading.splits import halve, nearest_share
from autoseg.engine.config import SearchConfig
from autoseg.errors import ConfigError, DataError
from autoseg.setup.from_data import guide
from autoseg.setup.other_data import data_for_run

SIZES = {"p01": 3, "p02": 5, "p03": 1, "p04": 4, "p05": 2, "p06": 5}
"""Images of each planted patient: 20 in all."""
NAMES = [f"{patient}_s{number}" for patient, count in SIZES.items() for number in range(count)]


def write(root: Path, names: Sequence[str], images: str = "images", masks: str = "masks") -> Path:
    """Images of noise under these names, without suffix, with masks of three labels."""
    for number, name in enumerate(names):
        rng = np.random.default_rng([len(images), number])
        image, mask = root / images / f"{name}.png", root / masks / f"{name}.png"
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(image)
        Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) % 3, (32, 1))).save(mask)
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Six patients in one folder, without splits."""
    return write(tmp_path / "set", NAMES)


def config_of(root: Path, **settings: Any) -> ResolvedDataConfig:
    return resolve(parse(DataConfig, {"root": str(root), **settings}))


def names_of(root: Path, **settings: Any) -> dict[str, list[str]]:
    config = config_of(root, **settings)
    return {split: open_dataset(config, split).names for split in ("train", "val")}


def check(root: Path, **settings: Any) -> DataReport:
    return check_dataset(parse(DataConfig, {"root": str(root), **settings}))


def patient(name: str) -> str:
    return Path(name).name[:3]


# --- near the wanted share --------------------------------------------------------------------------------------------


def test_no_set_of_groups_is_nearer() -> None:
    """Held against all sets of groups."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(1, rng.choice([3, 10, 60]), rng.integers(2, 9)).tolist()
        wanted = int(rng.integers(1, sum(sizes)))
        taken = nearest_share(sizes, wanted)
        assert len(set(taken)) == len(taken)
        assert 0 < len(taken) < len(sizes)
        some = (itertools.combinations(sizes, count) for count in range(1, len(sizes)))
        nearest = min(abs(sum(each) - wanted) for each in itertools.chain(*some))
        assert abs(sum(sizes[index] for index in taken) - wanted) == nearest, (sizes, wanted)


def test_the_first_groups_are_taken_and_another_image_changes_little() -> None:
    sizes = np.random.default_rng(1).integers(5, 15, 200).tolist()
    taken = set(nearest_share(sizes, 400))
    assert max(taken) < 50, "of the first groups, not of all"
    for index in range(0, 200, 7):
        more = [size + (place == index) for place, size in enumerate(sizes)]
        assert len(taken ^ set(nearest_share(more, 401))) <= 6


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.7])
def test_halves_keep_groups_whole_for_every_seed(fraction: float) -> None:
    rng = np.random.default_rng(2)
    seen = set()
    for seed in range(30):
        groups = [f"g{number}" for number in rng.integers(0, 12, 80)]
        first, second = halve(80, fraction, seed, groups)
        assert sorted([*first.tolist(), *second.tolist()]) == list(range(80))
        assert (np.diff(first) > 0).all()
        assert (np.diff(second) > 0).all()
        assert not {groups[index] for index in first} & {groups[index] for index in second}
        assert abs(len(first) - fraction * 80) <= 5
        again = halve(80, fraction, seed, groups)
        assert np.array_equal(first, again[0])
        fixed = [f"g{number // 5:02}" for number in range(80)]
        seen.add(tuple(halve(80, fraction, seed, fixed)[0]))
    assert len(seen) > 20, "the seed decides"


def test_without_groups_halves_are_those_of_before() -> None:
    assert [half.tolist() for half in halve(9, 0.5, 3)] == [[0, 1, 4, 7, 8], [2, 3, 5, 6]]


def test_training_images_of_one_group_cannot_be_halved() -> None:
    with raises_code(DataError, "group-by-one-group", "4 training images", "'p01'", "data.group_by"):
        halve(4, 0.5, 0, ["p01"] * 4)


# --- what is a group --------------------------------------------------------------------------------------------------

TABLE = "".join(f"{number},images/{name}.png,{patient(name)}\n" for number, name in enumerate(NAMES))
TABLES: dict[str, bytes] = {
    "an index": (",image,patient\n" + TABLE).encode(),
    "a mark of UTF-8": (",image,patient\n" + TABLE).encode("utf-8-sig"),
    "UTF-16": (",image,patient\n" + TABLE).encode("utf-16"),
    "semicolons, another order": "\r\n".join(["patient;name", *(f"{patient(n)};{n}" for n in NAMES)]).encode(),
    "backslashes": "".join(["image\tpatient\n", *(f"images\\{n}.png\t{patient(n)}\n" for n in NAMES)]).encode(),
    "quotes": "".join(['"file","patient"\n', *(f'"./images/{n}.png","{patient(n)}"\n' for n in NAMES)]).encode(),
    "a folder above": "".join(["x,patient\n", *(f"set/images/{n}.png,{patient(n)}\n" for n in NAMES)]).encode(),
    "rows twice, and others": ("n,patient\nzzz,p09\n" + 2 * "".join(f"{n},{patient(n)}\n" for n in NAMES)).encode(),
}
EXPRESSIONS = (r"p\d+", r"images/(p\d+)", r"([^/_]+)_", r"(p)(\d+)_", r"(?:x(\d)|(p\d+))", r"[/](p0.)_s\d\.png$")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", [*EXPRESSIONS, "folder", *TABLES])
def test_every_way_to_say_it_keeps_patients_whole(by: str, seed: int, flat: Path, tmp_path: Path) -> None:
    root = flat
    if by == "folder":
        root = write(tmp_path / "deep", [f"{patient(name)}/{name}" for name in NAMES])
    elif by in TABLES:
        (root / "patients.csv").write_bytes(TABLES[by])
        by = "csv:patients.csv:patient"
    found = names_of(root, group_by=by, split_seed=seed)
    train, val = ({patient(name) for name in found[split]} for split in ("train", "val"))
    assert not train & val
    assert train | val == set(SIZES)
    assert sorted(Path(name).name for name in [*found["train"], *found["val"]]) == sorted(NAMES)
    assert len(found["val"]) == 4, "a fifth of 20, which groups of 4, 3 + 1 and others make exactly"
    assert names_of(root, group_by=by, split_seed=seed) == found


def test_the_seed_chooses_groups(flat: Path) -> None:
    vals = {tuple(names_of(flat, group_by=r"p\d+", split_seed=seed)["val"]) for seed in range(12)}
    assert len(vals) > 1


def test_without_group_by_the_split_is_that_of_before(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{number:02}" for number in range(10)])
    assert names_of(root)["val"] == ["02", "05"]
    assert names_of(root, split_seed=1)["val"] == ["04", "08"]


def test_a_table_of_stems_that_count_is_told_from_an_index(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [str(number) for number in range(8)])
    rows = "".join(f"{number},{7 - number},{'ab'[number < 2]}\n" for number in range(8))
    (root / "t.csv").write_text(f",image,site\n{rows}")
    assert names_of(root, group_by="csv:t.csv:site")["val"] == ["6", "7"]


def test_names_of_images_with_accents(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"e\u0301t\u00e9{group}_{number}" for group in range(3) for number in range(2)])
    lines = "".join(f"\u00e9t\u00e9{group}_{number}.png,{group}x\n" for group in range(3) for number in range(2))
    (root / "t.csv").write_text(f"image,site\n{lines}", encoding="utf-8")
    assert len(names_of(root, group_by="csv:t.csv:site")["val"]) == 2


# --- what does not fit ------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Mapping[str, Any], str | None, str, Sequence[str]]] = {
    "nothing": ({"group_by": "case"}, None, "group-by-matches-nothing", ["'case'", "images/p01_s0.png"]),
    "an empty match": ({"group_by": "(x*)"}, None, "group-by-matches-nothing", ["images/p01_s0.png"]),
    "everything": ({"group_by": "p"}, None, "group-by-one-group", ["20 images", "images/p01_s0.png", "'p'"]),
    "one folder": ({"group_by": "folder"}, None, "group-by-one-group", ["images/p01_s0.png"]),
    "some": ({"group_by": "p0[1-4]"}, None, "group-by-misses-images",
             ["13 of 20 images", "images/p05_s0.png", "images/p05_s1.png", "images/p06_s0.png, ..."]),
    "a table's name": ({"group_by": "patients.csv:patient"}, None, "group-by-matches-nothing",
                       ["csv:patients.csv:patient"]),
    "no table": ({"group_by": "csv:no.csv:patient"}, None, "group-table-missing", ["set/no.csv"]),
    "no column": ({"group_by": "csv:t.csv:site"}, "image,patient\n", "group-column-missing",
                  ["set/t.csv", "'site'", "'image', 'patient'"]),
    "an empty table": ({"group_by": "csv:t.csv:site"}, "\n", "group-column-missing", ["set/t.csv", "none"]),
    "one column": ({"group_by": "csv:t.csv:site"}, "site\na\n", "group-by-matches-nothing", ["set/t.csv"]),
    "other images": ({"group_by": "csv:t.csv:site"}, "image,site\na,1\nb,2\n", "group-by-matches-nothing",
                     ["set/t.csv", "'site'", "images/p01_s0.png"]),
    "images left out": ({"group_by": "csv:t.csv:site"}, "image,site\np01_s0,1\np01_s1,2\np01_s2,\n",
                        "group-by-misses-images", ["set/t.csv", "2 of 20", "images/p01_s2.png, images/p02_s0.png"]),
    "two groups": ({"group_by": "csv:t.csv:site"}, "image,site\np01_s0,1\np01_s1,2\np01_s0.png,3\n", "group-unclear",
                   ["set/t.csv", "p01_s0", "'1' in line 2", "'3' in line 4"]),
    "no text": ({"group_by": "csv:t.csv:site"}, "\0\x81\xff", "file-unreadable", ["set/t.csv"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_ends_a_run_and_a_check(
    case: str, flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, table, code, named = WRONG[case]
    if table is not None:
        (flat / "t.csv").write_text(table, encoding="latin-1")
    with raises_code(ConfigError, code, *named):
        config_of(flat, **settings)
    arguments = ["--set", f"data.group_by={settings['group_by']}", "--out", str(tmp_path / "out")]
    for command in (["check-data", str(flat)], ["search", "--space", "tiny", "--data", str(flat)]):
        capsys.readouterr()
        assert run([*command, *arguments]) == 2
        printed = capsys.readouterr()
        assert [line for line in printed.err.splitlines() if line.startswith("error")] == [
            line for line in printed.err.splitlines() if f"[{code}]" in line
        ]
        assert printed.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("by", "named"), [("(p", "position 0"), ("p[", "position 1"), ("csv:", "csv:FILE:COLUMN"), ("csv:a", "csv:FILE")]
)
def test_what_is_no_expression(by: str, named: str) -> None:
    with raises_code(ConfigError, "setting-invalid", "group_by", by, named):
        parse(DataConfig, {"root": "x", "group_by": by})


def test_the_generated_set_has_no_groups() -> None:
    with raises_code(ConfigError, "setting-invalid", "group_by", "generated"):
        parse(DataConfig, {"layout": "generated", "group_by": "folder"})


def test_a_row_that_names_two_images(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        write(root, ["0", "1"], f"{split}/images", f"{split}/masks")
    (root / "t.csv").write_text("image,site\n0,a\n1,b\n")
    with raises_code(ConfigError, "group-unclear", "line 2", "t.csv", "train/images/0.png", "val/images/0.png"):
        config_of(root, group_by="csv:t.csv:site")
    paths = [f"{split}/images/{number}.png" for split in ("train", "val") for number in (0, 1)]
    (root / "t.csv").write_text("image,site\n" + "".join(f"{path},{path[0]}\n" for path in paths))
    assert config_of(root, group_by="csv:t.csv:site").group_by == "csv:t.csv:site"


# --- what is said -----------------------------------------------------------------------------------------------------


def said_of(root: Path, **settings: Any) -> list[str]:
    """The lines of a run, which are those of a check."""
    lines: list[str] = []
    resolve(parse(DataConfig, {"root": str(root), **settings}), say=lines.append)
    said = [line.removeprefix("data: ") for line in lines]
    report = check(root, **settings)
    assert report.to_dict()["decisions"] == said
    for split, summary in report.summary.items():
        assert summary.images == len(names_of(root, **settings)[split])
    return said


def test_how_many_groups_there_are_and_where(flat: Path) -> None:
    found = names_of(flat, group_by=r"p\d+")
    of = {split: len({patient(name) for name in names}) for split, names in found.items()}
    line = (
        rf"6 groups by data.group_by p\d+, of 1 to 5 images: train has {of['train']} (16 images), val has {of['val']}"
    )
    assert f"{line} (4 images)" in said_of(flat, group_by=r"p\d+")
    assert describe_dataset(config_of(flat, group_by=r"p\d+")).endswith(
        "split by seed 0 in groups (data.val_share 0.2)"
    )
    assert check(flat, group_by=r"p\d+").proposal["group_by"] == r"p\d+"


def test_groups_of_one_image_do_nothing_and_say_so(flat: Path) -> None:
    said = said_of(flat, group_by=r"p\d+_s\d")
    assert "each of 20 images is a group of its own, so data.group_by changes nothing" in said


def test_rows_of_no_image_are_counted(flat: Path) -> None:
    (flat / "t.csv").write_text(TABLES["rows twice, and others"].decode())
    assert "1 row of the table of groups names no image with a mask" in said_of(flat, group_by="csv:t.csv:patient")


def test_groups_on_both_sides_of_the_users_splits(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, ["p01_0", "p01_1", "p02_0", "p03_0"], "train/images", "train/masks")
    write(root, ["p02_5", "p03_5", "p04_5"], "val/images", "val/masks")
    line = "2 groups of val are also in train, such as p02, p03, so scores on val would be too good"
    assert line in said_of(root, group_by=r"p\d+")
    report = check(root, group_by=r"p\d+")
    assert [(one.kind, one.split, one.stops) for one in report.problems if one.kind != "rare"] == [
        ("group", "val", False)
    ]
    assert line in report.problems[0].text
    with raises_code(ConfigError, "group-by-one-group", "7 images", "train/images/p01_0.png", "'p0'"):
        config_of(root, group_by="p0")
    val = check_dataset(parse(DataConfig, {"root": str(root), "group_by": "p0"}), "val")
    assert [one.kind for one in val.problems] == []


SUGGESTED: dict[str, tuple[Sequence[str], int]] = {
    "patients": (NAMES, 6),
    "patients and visits": ([f"pat{p}-visit{v}-{s}" for p in range(4) for v in range(2) for s in range(3)], 4),
    "a common word first": ([f"case_{p:02}_{s:03}" for p in range(5) for s in range(4)], 5),
    "frames": ([f"{video}_{frame:05}" for video in ("0016E5", "0001TP", "Seq05VD") for frame in range(0, 90, 30)], 3),
    "no separator": ([f"p{p:02}s{s}" for p in range(4) for s in range(3)], 4),
    "eyes": ([f"Image_{p:02}{side}" for p in range(6) for side in "LR"], 6),
    "folders": ([f"video{v}/frame_{f}" for v in range(4) for f in range(4)], 4),
    "copies": ([f"{n:03}_{kind}" for n in range(6) for kind in ("flip", "plain", "rot90")], 6),
}
UNSUGGESTED: dict[str, Sequence[str]] = {
    "numbers": [f"{n:04}" for n in range(20)],
    "a word and a number": [f"img_{n:03}" for n in range(20)],
    "two words": [f"{word}_{n}" for word in ("cat", "dog", "horse") for n in range(8)],
    "years": [f"{year}_{n:06}" for year in (2007, 2008, 2009, 2010) for n in range(6)],
    "two groups": [f"p{p}_{s}" for p in range(2) for s in range(9)],
    "one image a group": [f"{n:06}_10" for n in range(20)],
    "few of several": [f"{n:06}_10" for n in range(20)] + ["000003_11", "000004_11"],
    "numbers that begin anew": [f"video/p{p}_{s}" for p in range(4) for s in range(4)]
    + [f"film/p{p}_{s}" for p in range(4) for s in range(4)],
    "kinds in folders": [f"{kind}/{kind[0]}{n:02}" for kind in ("rural", "urban", "water") for n in range(8)],
    "other names too": [*NAMES, "overview"],
    "letters and digits": [f"{n * 7919 % 99991:05x}-{n * 104729 % 99989:05x}" for n in range(1, 20)],
}


@pytest.mark.parametrize("case", SUGGESTED)
def test_what_names_suggest_can_be_set(case: str, tmp_path: Path) -> None:
    names, count = SUGGESTED[case]
    root = write(tmp_path / "set", names)
    (problem,) = [one for one in check(root).problems if one.kind == "names"]
    assert f"suggest {count} groups" in problem.text
    assert not problem.stops
    assert problem.text in said_of(root)
    form = problem.text.split("data.group_by '")[1].split("' keeps")[0]
    settings = yaml.safe_load(form)
    assert settings == form, "as --set reads it"
    assert any(line.startswith(f"{count} groups by") for line in said_of(root, group_by=form))
    assert [one for one in check(root, group_by=form).problems if one.kind in ("names", "group")] == []


@pytest.mark.parametrize("case", UNSUGGESTED)
def test_what_names_do_not_suggest(case: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    pairs = [(name, root / "images" / f"{name}.png", root / "masks" / f"{name}.png") for name in UNSUGGESTED[case]]
    root.mkdir()
    (root / "x").touch()
    splits = ["val" if number % 4 == 0 else "train" for number in range(len(pairs))]
    assert suggestion(DataConfig(root=str(root)), pairs, splits) is None


def test_the_hint_on_splits_of_the_user_is_in_a_check_alone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, [name for name in NAMES if name <= "p04_s2"], "train/images", "train/masks")
    write(root, [name for name in NAMES if name > "p04_s2"], "val/images", "val/masks")
    assert not [line for line in said_of(root) if "suggest" in line]
    (problem,) = [one for one in check(root).problems if one.kind == "names"]
    assert "1, p04, lies in both train and val" in problem.text
    assert "train and val, and" not in problem.text, "group_by does not change the user's splits"


# --- through the commands ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_keeps_patients_in_one_half(flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"search": {"epochs": 1, "arch_start_epoch": 0}, "data": {"layout": "auto", "generated": {}}}
    config = write_config(tmp_path / "c.yaml", SEARCH, settings)
    text = yaml.safe_load(config.read_text())
    text["data"] = {"root": str(flat), "group_by": r"p\d+"}
    config.write_text(yaml.safe_dump(text))
    call("search", "--config", config, "--out", tmp_path / "run")
    halves = yaml.safe_load((tmp_path / "run/split.yaml").read_text())
    of = {half: {patient(name) for name in names} for half, names in halves.items()}
    assert not of["train_a"] & of["train_b"]
    assert sum(map(len, halves.values())) == 16
    assert all(6 <= len(names) <= 10 for names in halves.values())
    line = f"groups by data.group_by: trainA has {len(of['train_a'])} ({len(halves['train_a'])} images), trainB"
    assert line in capsys.readouterr().out
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"]
    assert stored["group_by"] == r"p\d+"
    data = parse(SearchConfig, yaml.safe_load((tmp_path / "run/config.yaml").read_text())).data
    assert not {patient(name) for name in open_dataset(data, "val").names} & (of["train_a"] | of["train_b"])
    call("search", "--out", tmp_path / "run", "--resume")
    assert yaml.safe_load((tmp_path / "run/split.yaml").read_text()) == halves


@pytest.mark.slow
def test_a_batch_is_proposed_that_the_smaller_half_has(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"a_{n}" for n in range(3)] + [f"b_{n}" for n in range(14)] + ["c_0", "c_1", "c_2"])
    data = {"root": str(root), "group_by": "images/(.)"}
    settings = search_settings("tiny", data)
    guided, reasons = guide(settings, open_dataset(settings.data, "train"), set())
    assert guided.search.batch_size == 3, reasons
    with raises_code(ConfigError, "batch-too-large", "14 in trainA and 3 in trainB"):
        autoseg.plan(SPACE, data, crop=(32, 32), batch=4, measure_time=False)


def test_evaluating_elsewhere_keeps_groups_that_fit(flat: Path, tmp_path: Path) -> None:
    own = config_of(flat, group_by=r"p\d+")
    lines: list[str] = []
    moved = data_for_run(own, write(tmp_path / "moved", NAMES), say=lines.append)
    assert moved.group_by == own.group_by
    assert open_dataset(moved, "val").names == open_dataset(own, "val").names
    other = data_for_run(own, write(tmp_path / "other", ["a", "b", "c"]), say=lines.append)
    assert other.group_by is None
    assert [line for line in lines if "left out" in line] == [
        r"data: the run's data.group_by p\d+ does not fit this data, and is left out"
    ]
    with raises_code(ConfigError, "group-by-misses-images", "1 of 3 images", "images/b.png"):
        data_for_run(own, write(tmp_path / "mixed", ["p01_s0", "b", "c"]))
    with raises_code(ConfigError, "group-by-matches-nothing", "'q'"):
        data_for_run(own, tmp_path / "other", {"data": {"group_by": "q"}})


def test_a_converted_set_keeps_its_groups(flat: Path, tmp_path: Path) -> None:
    written = autoseg.convert(
        flat, tmp_path / "out", overrides={"data": {"group_by": r"p\d+"}}, show_progress=False
    )  # fmt: skip
    dataset = open_dataset(written, "train")
    assert dataset.groups() == [patient(name) for name in dataset.names]
    assert dataset.names == names_of(flat, group_by=r"p\d+")["train"]
    plain = autoseg.convert(flat, tmp_path / "plain", show_progress=False)
    assert plain.group_by is None
    assert not (tmp_path / "plain/groups.csv").exists()
