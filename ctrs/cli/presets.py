"""``ctrs presets``: the known data sets, and the file of each to copy and edit."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import typer

from ctrs.cli import options
from ctrs.cli.console import Console

app = typer.Typer(
    help="List the known data sets, or print the file of one to copy and edit.",
    invoke_without_command=True,
)


@app.callback()
def presets(
    context: typer.Context,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """List the data sets whose layout `ctrs prepare` recognises; `ctrs presets show NAME` prints one as TOML."""
    if context.invoked_subcommand is not None:
        return
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)

    from ctrs.tiles.presets import GENERIC, load_preset, preset_names

    known = [preset for name in preset_names() if name != GENERIC and (preset := load_preset(name)) is not None]
    payload: dict[str, Any] = {
        "presets": [
            {
                "name": preset.name,
                "title": preset.title,
                "splits": preset.split_summary,
                "classes": list(preset.classes.names),
                "extra": list(preset.extras),
                "variants": list(preset.variants),
                "url": preset.url,
            }
            for preset in known
        ]
    }
    rows = [
        [preset.name, preset.title, preset.split_summary, str(preset.classes.num_classes), preset.url]
        for preset in known
    ]
    header = ["name", "what it is", "splits", "classes", "url"]
    console.result(payload, lambda: console.table("", header, rows, left=(0, 1, 2, 4)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name from `ctrs presets`.", show_default=False)],
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Print the TOML file of a preset: `ctrs presets show potsdam > my.toml`; with --json its keys and values."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)

    from ctrs.tiles.presets import preset_text

    text = preset_text(name)
    console.result({"name": name, "preset": tomllib.loads(text)}, lambda: typer.echo(text, nl=False))
