"""``ctrs ablate``: a grid of runs over seeds, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctrs.cli import options
from ctrs.cli.console import Console
from ctrs.config import SplitName, read_ablation
from ctrs.errors import CtrsError
from ctrs.workspace import ABLATIONS

if TYPE_CHECKING:
    from ctrs.ablation import AblationPlan


def ablate(
    file: Annotated[Path, typer.Argument(help="TOML file with the grid: data, seeds, losses, networks, variants.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the runs and the table.",
            show_default=f"{ABLATIONS}/ and the file's name",
            rich_help_panel="Output",
        ),
    ] = None,
    split: Annotated[
        SplitName | None, typer.Option(help="What is scored; the file's, else test where there is one, else val.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and how far they are; train nothing, write nothing.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Also copy the small files that the table is made from, without data and weights, to this folder.",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    """Train every combination of a grid over seeds, go on where it was stopped, and print the table."""
    console = Console(as_json=as_json, verbose=verbose, quiet=quiet)
    config = read_ablation(file, split=split)
    folder = out or Path(ABLATIONS) / file.stem
    console.note(f"ablation: {folder}")
    console.note(f"data: {config.data}")
    if dry_run:
        from ctrs.ablation import plan_ablation

        plan = plan_ablation(config, folder)
        console.result(plan.to_json(), lambda: _show_plan(console, plan))
        return

    from ctrs.ablation import ablate as ablate_grid
    from ctrs.ablation import keep_results

    with console.progress() as progress:
        result = ablate_grid(config, folder, overwrite=overwrite, progress=progress)

    kept = keep_results(result, keep) if keep is not None and not result.failed else ()

    def show() -> None:
        for table in result.tables():
            console.table(table.title, table.header, table.rows)
        for path in result.paths:
            console.line(str(path))
        for path in kept:
            console.line(str(path))

    console.result(result.to_json(), show)
    if result.failed:
        first = result.failed[0]
        raise CtrsError(
            f"{len(result.failed)} of {len(result.runs)} runs failed, the first, {first.run.name}, because: "
            f"{first.error}; the same command tries them again"
        )


def _show_plan(console: Console, plan: AblationPlan) -> None:
    """List the runs, with the settings in which runs of this grid may differ."""
    rows = []
    for status in plan.runs:
        settings, count = status.run.config, plan.parameters.get(status.run.network)
        size = "–" if count is None else f"{count / 1e6:.1f} M"
        network = f"{settings.backbone} + {settings.decoder}"
        rows.append((status.run.name, network, size, settings.loss, str(settings.epochs), status.describe()))
    title = f"{plan.num_finished} of {len(plan.runs)} runs are finished; {plan.split} split is scored"
    console.table(title, ("run", "network", "parameters", "loss", "epochs", "state"), rows)
    if not plan.parameters:
        console.note(f"{plan.config.data}: no prepared data there yet")
