"""``ctrs info``: what a model is, as a card; also of prepared data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.errors import OutputExistsError, UsageError
from ctrs.workspace import newest_run

if TYPE_CHECKING:
    from ctrs.report.model_card import ModelCard

_PREPARED_FILE = "prepared.json"


def info(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Run folder, checkpoint folder or weight file, or a folder that prepare wrote; the newest run unless "
            "given.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the card as model_card.md into the run's folder, or to --out.")
    ] = False,
    stac: Annotated[
        bool, typer.Option("--stac", help="Write a STAC item (Machine Learning Model extension) beside the weights.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the weights with their hash.")] = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a model is: classes, bands, ground pixel, training, scores with their protocol, licence, versions."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    if out is not None and not markdown:
        raise UsageError("--out says where --markdown goes; give both, or none")
    path = model or newest_run()
    if model is None:
        console.note(f"run: {path}")
    if (path / _PREPARED_FILE).is_file():
        if markdown or stac or verify:
            raise UsageError(f"{path}: prepared data, but --markdown, --stac and --verify are of models; name a run")
        _show_data(path, console)
        return

    from ctrs.report.model_card import CARD_FILE, read_card

    card = read_card(path)
    written: list[Path] = []
    if verify:
        _verify(card, console)
    if markdown:
        target = out or _beside(card, CARD_FILE)
        _write_card(card, target, overwrite=overwrite)
        written.append(target)
    if stac:
        from ctrs.report.stac_item import write_stac_item

        written.append(write_stac_item(card, overwrite=overwrite))

    def show() -> None:
        if written:
            for target in written:
                console.line(str(target))
            return
        for table in card.tables():
            console.table(table.title, table.header, table.rows, left=table.left)

    console.result({**card.to_json(), "written": [str(target) for target in written]}, show)


def _beside(card: ModelCard, name: str) -> Path:
    """Return the place of a file in the run's folder; beside a weight file that stands alone, under its name."""
    from ctrs.model_files import WEIGHTS_FILE

    alone = card.files.weights.name != WEIGHTS_FILE
    return card.files.weights.with_name(f"{card.name}_{name}") if alone else card.home / name


def _write_card(card: ModelCard, target: Path, *, overwrite: bool) -> None:
    from ctrs.jobs import write_text

    text = card.markdown()
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; name a file with --out")
    if target.exists() and not overwrite:
        if target.read_text(encoding="utf-8", errors="replace") == text:
            return
        raise OutputExistsError(
            f"{target}: exists and differs from what would be written; pass --overwrite, or another place with --out"
        )
    write_text(target, text)


def _verify(card: ModelCard, console: Console) -> None:
    """Refuse weights that are not those that were described."""
    from ctrs.errors import CheckpointError
    from ctrs.model_files import hash_weights

    expected = card.metadata.weights_hash
    if expected is None:
        raise CheckpointError(f"{card.files.weights}: was written by an older ctrs without a hash; nothing to verify")
    if hash_weights(card.files.weights) != expected:
        raise CheckpointError(
            f"{card.files.weights}: not the weights that {card.files.description} describes (their hash differs); copy "
            "both again"
        )
    console.note(f"{card.files.weights}: weights are whole")


def _show_data(folder: Path, console: Console) -> None:
    """Show what was prepared."""
    from ctrs.tiles.manifest import read_prepared

    document = read_prepared(folder)
    bands = document["bands"]
    size = document["pixel_size_m"]
    facts = [
        ("data", str(document["name"])),
        ("preset", document["preset"] or "none"),
        ("tiles", ", ".join(f"{split} {count}" for split, count in document["num_tiles"].items())),
        ("scenes", str(len(document["scenes"]))),
        ("folds", str(document["num_folds"] or "none")),
        ("tile", f"{document['tile_px']} px"),
        ("ground pixel", f"{size:.4g} m" if size else "unknown (no CRS)"),
        ("bands", f"{', '.join(bands['names'])} ({bands['dtype']})"),
        ("licence", document.get("licence") or "not given"),
        ("prepared by", f"ctrs {document['ctrs_version']}"),
    ]
    splits: dict[str, dict[str, int]] = document["class_counts"]
    names = [row["name"] for row in document["classes"] if not row.get("ignored")]
    rows = [[name, *(str(counts.get(name, 0)) for counts in splits.values())] for name in names]
    keys = (
        "name", "preset", "licence", "num_tiles", "tile_px", "pixel_size_m", "num_folds", "classes", "class_counts",
        "bands", "ctrs_version", "fingerprint",
    )  # fmt: skip
    payload: dict[str, Any] = {"path": str(folder), **{key: document.get(key) for key in keys}}

    def show() -> None:
        console.table(str(folder), ["prepared data", ""], facts, left=(0, 1))
        console.table("pixels of each class, tiles that overlap count twice", ["class", *splits], rows)

    console.result(payload, show)
