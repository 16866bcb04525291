"""Arrange the real sets for the building and land-cover protocols, as links in folders that ``ctrs prepare`` takes.

    python benchmarks/real_sets.py IMAGERY OUT

IMAGERY holds oam_fair_buildings, oam_banepa_urban and dubai_mbrsc_landcover. OUT/buildings gets images/ and labels/ of
zanzibar_a, kampala_a, kampala_b and banepa_urban (training) and zanzibar_b, catanduanes_a, catanduanes_b (test);
OUT/dubai gets images/, labels/ and classes.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

TRAINING = ("zanzibar_a", "kampala_a", "kampala_b")
TEST = ("zanzibar_b", "catanduanes_a", "catanduanes_b")

# Colours as measured in the masks; black pixels are strays outside the legend.
DUBAI_CLASSES = """\
[[class]]
name = "building"
color = [60, 16, 152]

[[class]]
name = "land"
color = [132, 41, 246]

[[class]]
name = "road"
color = [110, 193, 228]

[[class]]
name = "vegetation"
color = [254, 221, 58]

[[class]]
name = "water"
color = [226, 169, 41]

[[class]]
name = "unlabelled"
color = [155, 155, 155]
ignored = true

[[class]]
name = "stray"
color = [0, 0, 0]
ignored = true
"""


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        raise SystemExit(f"{source}: not there; the first argument must be the folder of the real sets")
    if not target.is_symlink():
        target.symlink_to(source.absolute())


def arrange_buildings(
    imagery: Path, out: Path, places: tuple[str, ...] = (*TRAINING, *TEST), banepa: bool = True
) -> Path:
    fair = imagery / "oam_fair_buildings"
    for place in places:
        link(fair / "scenes" / f"{place}_z20.tif", out / "images" / f"{place}.tif")
        link(fair / "labels" / f"{place}.geojson", out / "labels" / f"{place}.geojson")
    if banepa:
        link(imagery / "oam_banepa_urban" / "scene" / "banepa_urban.tif", out / "images" / "banepa_urban.tif")
        link(imagery / "oam_banepa_urban" / "labels" / "buildings.geojson", out / "labels" / "banepa_urban.geojson")
    return out


def arrange_dubai(imagery: Path, out: Path, pattern: str = "*") -> Path:
    folder = imagery / "dubai_mbrsc_landcover"
    for image in sorted((folder / "images").glob(f"{pattern}.jpg")):
        link(image, out / "images" / image.name)
        link(folder / "masks" / f"{image.stem}.png", out / "labels" / f"{image.stem}.png")
    (out / "classes.toml").write_text(DUBAI_CLASSES, encoding="utf-8")
    return out


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(arrange_buildings(Path(sys.argv[1]), Path(sys.argv[2]) / "buildings"))
    print(arrange_dubai(Path(sys.argv[1]), Path(sys.argv[2]) / "dubai"))
