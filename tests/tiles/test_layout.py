"""Finding scenes: every layout that is promised, and a clear word where something is missing."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ctrs.config import PrepareConfig
from ctrs.errors import DataError, DataWarning, InputNotFoundError, LabelError, LabelWarning, UsageError
from ctrs.tiles.findings import Findings
from ctrs.tiles.layout import find_layout


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def pairs(root: Path, config: PrepareConfig | None = None) -> dict[str, tuple[str, str, str]]:
    layout = find_layout(root, config or PrepareConfig(), Findings())
    return {
        scene.name: (
            scene.split,
            scene.image.relative_to(root).as_posix(),
            scene.label.relative_to(root).as_posix(),
        )
        for scene in layout.scenes
    }


def test_images_and_labels_by_stem(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/b.png", "labels/a.tif", "labels/b.geojson", "images/a.tif.aux.xml")
    assert pairs(tmp_path) == {
        "a": ("train", "images/a.tif", "labels/a.tif"),
        "b": ("train", "images/b.png", "labels/b.geojson"),
    }


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("scenes/zanzibar_a_z20.tif", "labels/zanzibar_a.geojson"),
        ("chips/x-1.tif", "chip_masks/x-1.tif"),
        ("images/a.tif", "masks/a_mask.tif"),
        ("images/a_RGB.tif", "labels/a_label.tif"),
        ("images/a_RGB.tif", "labels/a.tif"),
        ("images/image_15cm.tif", "labels/label_15cm.tif"),
        ("images/a.b.tif", "labels/a.b.gpkg"),
        ("a.jpg", "a.png"),
        ("a.tif", "a_mask.tif"),
        ("a.tif", "a.shp"),
        ("a_2020.tif", "a.gpkg"),
        ("images/city/a.tif", "labels/city/a.tif"),
        ("images/a.tif", "footprints.fgb"),
    ],
)
def test_one_pair(tmp_path: Path, image: str, label: str) -> None:
    touch(tmp_path, image, label)
    ((_, found_image, found_label),) = pairs(tmp_path).values()
    assert (found_image, found_label) == (image, label)


def test_the_longest_beginning_wins(tmp_path: Path) -> None:
    touch(tmp_path, "images/kampala_a_z20.tif", "images/kampala_b.tif", "labels/kampala.gpkg", "labels/kampala_a.gpkg")
    assert [label for _, _, label in pairs(tmp_path).values()] == ["labels/kampala_a.gpkg", "labels/kampala.gpkg"]


@pytest.mark.parametrize("where", ["labels/", ""])
def test_one_vector_file_serves_all(tmp_path: Path, where: str) -> None:
    images = ("images/1.tif", "images/2.tif") if where else ("1.tif", "2.tif")
    touch(tmp_path, *images, f"{where}buildings.gpkg", "stac-item.json", "README.md")
    assert {label for _, _, label in pairs(tmp_path).values()} == {f"{where}buildings.gpkg"}


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{kind}/a.tif" for split in ("train", "Val", "test") for kind in ("images", "labels")))
    found = pairs(tmp_path)
    assert {name: split for name, (split, _, _) in found.items()} == {
        "train_a": "train", "val_a": "val", "test_a": "test",
    }  # fmt: skip
    assert found["val_a"][1] == "Val/images/a.tif"


def test_splits_below_images(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.tif", "images/test/b.tif", "labels/train/a.tif", "labels/test/b.tif")
    assert {name: split for name, (split, _, _) in pairs(tmp_path).items()} == {"a": "train", "b": "test"}


def test_patterns_choose_splits(tmp_path: Path) -> None:
    names = ("a_1", "a_2", "b_1", "c_1")
    touch(tmp_path, *(f"{kind}/{name}.tif" for name in names for kind in ("images", "labels")))
    found = pairs(tmp_path, PrepareConfig(val=("b*",), test=("a_2", "c_*")))
    assert [split for split, _, _ in found.values()] == ["train", "test", "val", "test"]
    with pytest.raises(UsageError, match=re.escape("--test 'd*' matches no scene of")):
        pairs(tmp_path, PrepareConfig(test=("d*",)))
    with pytest.raises(UsageError, match="scene b_1 matches both --val and --test"):
        pairs(tmp_path, PrepareConfig(val=("b*",), test=("*_1",)))


def test_potsdam_with_leading_zeros_and_official_split(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "2_Ortho_RGB/top_potsdam_06_07_RGB.tif", "5_Labels_all/top_potsdam_6_7_label.tif",
        "2_Ortho_RGB/top_potsdam_2_13_RGB.tif", "5_Labels_all/top_potsdam_02_13_label.tif",
        "3_Ortho_IRRG/top_potsdam_2_13_IRRG.tif",
        "5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif",
    )  # fmt: skip
    layout = find_layout(tmp_path, PrepareConfig(), Findings())
    assert layout.band_names == ("red", "green", "blue")
    assert [(scene.name, scene.split) for scene in layout.scenes] == [
        ("potsdam_2_13", "test"), ("potsdam_6_7", "train"),
    ]  # fmt: skip
    assert [scene.label_eroded is not None for scene in layout.scenes] == [True, False]
    by_id = find_layout(tmp_path, PrepareConfig(test=("6_7",)), Findings())
    assert [scene.split for scene in by_id.scenes] == ["train", "test"]


def test_vaihingen(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{folder}/top_mosaic_09cm_area{n}.tif" for n in (1, 2, 10) for folder in ("top", "gts_for_participants")),
        "gts_eroded_for_participants/top_mosaic_09cm_area1_noBoundary.tif",
    )
    layout = find_layout(tmp_path, PrepareConfig(), Findings())
    assert layout.band_names == ("near infrared", "red", "green")
    assert [(scene.name, scene.split) for scene in layout.scenes] == [
        ("vaihingen_1", "train"), ("vaihingen_2", "test"), ("vaihingen_10", "test"),
    ]  # fmt: skip
    assert layout.scenes[0].label.parent.name == "gts_for_participants"
    assert layout.scenes[0].label_eroded is not None


def test_loveda_leaves_out_the_unlabelled_test_split(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Train/Urban/images_png/5.png", "Train/Urban/masks_png/5.png",
        "Val/Rural/images_png/7.png", "Val/Rural/masks_png/7.png", "Test/Rural/images_png/9.png",
    )  # fmt: skip
    findings = Findings()
    layout = find_layout(tmp_path, PrepareConfig(), findings)
    assert [(scene.name, scene.split) for scene in layout.scenes] == [
        ("loveda_Rural_7", "val"), ("loveda_Urban_5", "train"),
    ]  # fmt: skip
    assert [finding.message for finding in findings.entries] == [
        "1 images of the loveda test split left out: its labels are not published"
    ]


def test_a_test_split_without_labels_is_left_out_as_a_whole(tmp_path: Path) -> None:
    touch(tmp_path, "top_potsdam_2_10_RGB.tif", "top_potsdam_2_10_label.tif")
    touch(tmp_path, "top_potsdam_2_13_RGB.tif", "top_potsdam_2_14_RGB.tif")
    findings = Findings()
    with pytest.warns(LabelWarning, match="the potsdam test split has no labels; 2 images are left out"):
        layout = find_layout(tmp_path, PrepareConfig(), findings)
    assert [scene.name for scene in layout.scenes] == ["potsdam_2_10"]
    touch(tmp_path, "top_potsdam_2_14_label.tif")  # now the other is missing
    findings = Findings()
    find_layout(tmp_path, PrepareConfig(), findings)
    assert [finding.message for finding in findings.entries if "1 image without a label" in finding.message]


def test_unknown_ids_of_a_benchmark_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "top_potsdam_9_99_RGB.tif", "top_potsdam_9_99_label.tif")
    with pytest.warns(DataWarning, match="scenes 9_99 are not in the official split of potsdam"):
        assert find_layout(tmp_path, PrepareConfig(), Findings()).scenes[0].split == "train"


def test_labels_without_images_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "labels/a.tif", "labels/b.tif")
    with pytest.warns(LabelWarning, match=r"labels: 1 label has no image and is left out: b\.tif"):
        find_layout(tmp_path, PrepareConfig(), Findings())


def test_class_files(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "labels/a.tif")
    assert find_layout(tmp_path, PrepareConfig(), Findings()).class_file is None
    touch(tmp_path, "classes.toml", "x.toml")
    assert find_layout(tmp_path, PrepareConfig(), Findings()).class_file == tmp_path / "classes.toml"
    assert (
        find_layout(tmp_path, PrepareConfig(classes=tmp_path / "x.toml"), Findings()).class_file == tmp_path / "x.toml"
    )
    with pytest.raises(InputNotFoundError, match=r"none\.toml: not found; name a TOML file with \[\[class\]\] tables"):
        find_layout(tmp_path, PrepareConfig(classes=tmp_path / "none.toml"), Findings())


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(
        InputNotFoundError, match="nowhere: not found; name a folder or zip archive with images and labels"
    ):
        find_layout(tmp_path / "nowhere", PrepareConfig(), Findings())
    with pytest.raises(InputNotFoundError, match=r"https:/host/a\.zip: is no folder here; download archives first"):
        find_layout(Path("https://host/a.zip"), PrepareConfig(), Findings())
    with pytest.raises(
        InputNotFoundError, match="no images found; put them into images/ and their labels into labels/"
    ):
        find_layout(tmp_path, PrepareConfig(), Findings())
    touch(tmp_path, "2_Ortho_RGB.rar")
    with pytest.raises(InputNotFoundError, match=r"no images found; unpack 2_Ortho_RGB\.rar and name the folder"):
        find_layout(tmp_path, PrepareConfig(), Findings())
    with pytest.raises(
        DataError, match=r"RGB\.rar: only zip archives are read in place; unpack it and name the folder"
    ):
        find_layout(tmp_path / "2_Ortho_RGB.rar", PrepareConfig(), Findings())
    with pytest.raises(DataError, match=r"a\.doc: is a file, expected a folder or zip archive"):
        find_layout(touch(tmp_path / "x", "a.doc") / "a.doc", PrepareConfig(), Findings())
    (tmp_path / "images").mkdir()
    with pytest.raises(InputNotFoundError, match="images: no images found"):
        find_layout(tmp_path, PrepareConfig(), Findings())


def faults(root: Path, config: PrepareConfig | None = None) -> list[str]:
    findings = Findings()
    find_layout(root, config or PrepareConfig(), findings)
    return [finding.message for finding in findings.entries if finding.level == "fault"]


def test_images_without_labels_are_all_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/b.tif", "images/c.tif", "labels/b.tif")
    (message,) = faults(tmp_path)
    assert "images: 2 images without a label: a.tif, c.tif; looked for the same stem in" in message
    potsdam = touch(
        tmp_path / "p", "top_potsdam_2_10_RGB.tif", "top_potsdam_2_11_RGB.tif", "top_potsdam_2_10_label.tif"
    )
    (message,) = faults(potsdam)
    assert "1 image without a label: top_potsdam_2_11_RGB.tif; expected where preset potsdam has them" in message


def test_a_source_without_any_label_is_refused_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/b.tif")
    with pytest.raises(LabelError, match=r"2 images without a label: a\.tif, b\.tif"):
        find_layout(tmp_path, PrepareConfig(), Findings())


def test_a_message_shows_some_names_and_the_finding_holds_all(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{number}.tif" for number in range(30)), "images/x.tif", "labels/x.tif")
    touch(tmp_path, *(f"labels/y{number}.tif" for number in range(30)))
    findings = Findings()
    with pytest.warns(LabelWarning, match=r"30 labels have no image .*: y0\.tif, .*, y19\.tif and 10 more"):
        find_layout(tmp_path, PrepareConfig(), findings)
    missing, unused = findings.entries
    assert missing.message.count(".tif") == 20
    assert len(missing.items) == len(unused.items) == 30
    assert missing.items[29] == str(tmp_path / "images/29.tif")


def test_several_labels_for_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "labels/a.tif", "labels/a.geojson")
    with pytest.raises(LabelError, match=r"a\.tif: several labels fit: .*a\.geojson and .*a\.tif; keep one"):
        find_layout(tmp_path, PrepareConfig(), Findings())
    assert pairs(tmp_path, PrepareConfig(label_kind="polygons"))["a"][2] == "labels/a.geojson"
    assert pairs(tmp_path, PrepareConfig(label_kind="values"))["a"][2] == "labels/a.tif"


def test_ambiguous_folders(tmp_path: Path) -> None:
    touch(tmp_path, "chips/a.tif", "scene/b.tif", "labels/a.tif")
    with pytest.raises(
        DataError, match="both scene/ and chips/ found; rename the one that holds the images to images/"
    ):
        find_layout(tmp_path, PrepareConfig(), Findings())


def test_the_same_scene_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/top_potsdam_2_10_RGB.tif", "b/top_potsdam_02_10_RGB.tif", "top_potsdam_2_10_label.tif")
    with pytest.raises(DataError, match="the same scene 2_10 as"):
        find_layout(tmp_path, PrepareConfig(), Findings())
    generic = touch(tmp_path / "g", "images/a.tif", "images/a.png", "labels/a.tif")
    with pytest.raises(DataError, match="the same name as"):
        find_layout(generic, PrepareConfig(), Findings())


def test_a_preset_that_does_not_fit(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "labels/a.tif")
    with pytest.raises(InputNotFoundError, match=r"expected paths like top_potsdam_1_1_RGB\.tif or"):
        find_layout(tmp_path, PrepareConfig(preset="potsdam"), Findings())


def test_generic_by_name_ignores_presets(tmp_path: Path) -> None:
    touch(tmp_path, "top_potsdam_2_10_RGB.tif", "top_potsdam_2_10_label.tif")
    assert list(pairs(tmp_path, PrepareConfig(preset="generic"))) == ["top_potsdam_2_10_RGB"]


def splits(root: Path, **options: tuple[str, ...]) -> dict[str, str]:
    layout = find_layout(root, PrepareConfig(**options), Findings())  # type: ignore[arg-type]
    return {scene.name: scene.split for scene in layout.scenes}


def test_lists_choose_splits(tmp_path: Path) -> None:
    names = ("a_1", "a_2", "b_1", "c_1", "d[1]")
    touch(tmp_path, *(f"{kind}/{name}.tif" for name in names for kind in ("images", "labels")))
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "val.txt").write_text("# validation\n\na_1\nb_1.tif  # by file name\n", encoding="utf-8-sig")
    (lists / "test.txt").write_text("images/c*.tif\r\nd[1]\r\n")
    found = splits(tmp_path, val=(f"@{lists / 'val.txt'}",), test=(f"@{lists / 'test.txt'}",))
    assert found == {"a_1": "val", "a_2": "train", "b_1": "val", "c_1": "test", "d[1]": "test"}
    assert splits(tmp_path, val=(f"@{lists / 'val.txt'}", "a_2"))["a_2"] == "val"
    layout = find_layout(tmp_path, PrepareConfig(val=(f"@{lists / 'val.txt'}", "a_2")), Findings())
    assert layout.list_files == (lists / "val.txt",)


def test_wrong_lists_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "labels/a.tif")
    path = tmp_path / "val.txt"
    path.write_text("a\nb\n\nc.tif\n")
    message = r"^.*val\.txt, line 2: 'b', .*val\.txt, line 4: 'c\.tif' match no scene of .* \(--val\); scenes: a$"
    with pytest.raises(UsageError, match=message):
        splits(tmp_path, val=(f"@{path}",))
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"--test @.*val\.txt: names no scene; write a scene name or pattern on each"):
        splits(tmp_path, test=(f"@{path}",))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"val\.txt: is no text in UTF-8"):
        splits(tmp_path, val=(f"@{path}",))
    with pytest.raises(InputNotFoundError, match=r"--val @none\.txt: not readable \(No such file or directory\)"):
        splits(tmp_path, val=("@none.txt",))


def test_known_bad_scenes_are_warned_of_or_left_out(tmp_path: Path) -> None:
    for name in ("2_10", "7_10"):
        touch(tmp_path, f"top_potsdam_{name}_RGB.tif", f"top_potsdam_{name}_label.tif")
    findings = Findings()
    with pytest.warns(
        LabelWarning, match="^scene potsdam_7_10: labels are known to be wrong; leave out with --skip-known-bad$"
    ):
        kept = find_layout(tmp_path, PrepareConfig(), findings)
    assert [scene.known_bad for scene in kept.scenes] == [False, True]
    assert [(finding.level, finding.items) for finding in findings.entries] == [("warning", ("potsdam_7_10",))]
    findings = Findings()
    layout = find_layout(tmp_path, PrepareConfig(skip_known_bad=True), findings)
    assert [scene.name for scene in layout.scenes] == ["potsdam_2_10"]
    assert [(finding.level, finding.message) for finding in findings.entries] == [
        ("note", "1 scene left out, labels known to be wrong: potsdam_7_10")
    ]


def test_extra_files_of_a_preset(tmp_path: Path) -> None:
    for name in ("2_10", "2_11"):
        touch(tmp_path, f"top_potsdam_{name}_RGB.tif", f"top_potsdam_{name}_label.tif")
    touch(tmp_path, "1_DSM/dsm_potsdam_02_10.tif")
    assert find_layout(tmp_path, PrepareConfig(), Findings()).scenes[0].extra == {}
    findings = Findings()
    first, second = find_layout(tmp_path, PrepareConfig(extra=("dsm",)), findings).scenes
    assert first.extra == {"dsm": tmp_path / "1_DSM/dsm_potsdam_02_10.tif"}
    assert second.extra == {}
    ((scene, message),) = [(finding.scene, finding.message) for finding in findings.entries]
    assert scene == "potsdam_2_11"
    assert "top_potsdam_2_11_RGB.tif: no dsm file found for scene 2_11" in message
    with pytest.raises(UsageError, match=r"--extra 'slope' found, but preset potsdam has: .*dsm"):
        find_layout(tmp_path, PrepareConfig(extra=("slope",)), Findings())
    generic = touch(tmp_path / "g", "images/a.tif", "labels/a.tif")
    with pytest.raises(UsageError, match=r"--extra 'dsm' found, but .* follows no preset; choose with --preset"):
        find_layout(generic, PrepareConfig(extra=("dsm",)), Findings())


def test_labels_without_images_of_a_preset_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "top_potsdam_2_10_RGB.tif", "top_potsdam_2_10_label.tif", "top_potsdam_2_11_label.tif")
    with pytest.warns(LabelWarning, match=r"1 label has no image and is left out: top_potsdam_2_11_label\.tif"):
        find_layout(tmp_path, PrepareConfig(), Findings())


def test_one_folder_in_the_source_is_entered(tmp_path: Path) -> None:
    touch(tmp_path, "town/2020/images/a.tif", "town/2020/labels/a.tif", "readme.txt")
    assert pairs(tmp_path) == {"a": ("train", "town/2020/images/a.tif", "town/2020/labels/a.tif")}


def test_endings_in_capitals_hidden_files_and_loops(tmp_path: Path) -> None:
    touch(tmp_path, "Images/a.TIF", "LABELS/a.GeoJSON", "Images/.b.tif", ".cache/images/c.tif", "Images/a.tif.aux.XML")
    (tmp_path / "Images/again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a_link").symlink_to(tmp_path / "Images", target_is_directory=True)
    assert pairs(tmp_path) == {"a": ("train", "Images/a.TIF", "LABELS/a.GeoJSON")}


def test_only_labels(tmp_path: Path) -> None:
    touch(tmp_path, "labels/a.tif", "labels/b.tif")
    with pytest.raises(InputNotFoundError, match="no images found; put them into images/"):
        find_layout(tmp_path, PrepareConfig(), Findings())
    touch(tmp_path / "h", ".a.tif", ".images/b.tif", "images/.c.tif")
    with pytest.raises(InputNotFoundError, match="h/images: no images found"):
        find_layout(tmp_path / "h", PrepareConfig(), Findings())


def test_all_images_with_several_labels_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}.{end}" for folder in ("labels/a", "labels/b") for end in ("tif", "geojson")))
    touch(tmp_path, "images/a.tif", "images/b.tif", "images/c.tif", "labels/c.tif")
    messages = faults(tmp_path)
    assert [message.partition(": several")[0].rpartition("/")[2] for message in messages] == ["a.tif", "b.tif"]


def test_a_file_as_source_is_refused_where_images_are_named_too(tmp_path: Path) -> None:
    """A shell that expands a pattern hands the second file over as the source."""
    touch(tmp_path, "a.tif", "b.tif", "l.geojson", "a.tar.gz")
    config = PrepareConfig(images=(f"{tmp_path}/a.tif",), labels=(f"{tmp_path}/l.geojson",))
    with pytest.raises(DataError, match=r"b\.tif: is a file, expected a folder .*quote patterns \('\*\.tif'\) so that"):
        find_layout(tmp_path / "b.tif", config, Findings())
    with pytest.raises(DataError, match=r"a\.tar\.gz: only zip archives are read in place"):
        find_layout(tmp_path / "a.tar.gz", config, Findings())


def close_folders(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the system refuse to list folders, as it does to all but root."""
    listed = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("closed", ["images/south", "labels"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    touch(tmp_path, "images/north/a.tif", "images/south/b.tif", "labels/a.tif", "labels/b.tif", "lost+found/x")
    close_folders(monkeypatch, Path(closed).name, "lost+found")
    message = rf"{tmp_path / closed}: permission denied, so what lies there would be missing; allow reading it"
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path, PrepareConfig(), Findings())
    close_folders(monkeypatch, "images", "labels")
    with pytest.raises(DataError, match=f"{tmp_path}/images and 1 more: permission denied"):
        find_layout(tmp_path, PrepareConfig(), Findings())


@pytest.mark.parametrize("pattern", ["images/*/*.tif", "images/**/*.tif", "images", "images/south/?.tif"])
def test_a_pattern_does_not_pass_over_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    touch(tmp_path, "images/north/a.tif", "images/south/b.tif", "l.gpkg")
    close_folders(monkeypatch, "south")
    with pytest.raises(DataError, match=f"{tmp_path}/images/south: permission denied"):
        find_layout(tmp_path, PrepareConfig(images=(pattern,), labels=("l.gpkg",)), Findings())


def test_named_files_on_both_sides_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "here/a.tif", "there/b.tif", "here/l.gpkg")
    monkeypatch.chdir(tmp_path / "here")
    config = PrepareConfig(images=("a.tif", f"{tmp_path}/there/b.tif"), labels=("l.gpkg",))
    scenes = find_layout(Path(), config, Findings()).scenes
    assert [scene.image for scene in scenes] == [Path("a.tif"), tmp_path / "there/b.tif"]
