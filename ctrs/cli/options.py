"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ctrs.errors import ConfigError

_OUTPUT = "Output"
_COMPUTE = "Compute"

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=_OUTPUT)]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.", rich_help_panel=_OUTPUT)
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a different result and discard unfinished work.", rich_help_panel=_OUTPUT
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Where the result goes.", metavar="PATH", rich_help_panel=_OUTPUT)
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.", rich_help_panel=_COMPUTE),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images at a time; by device unless given.", rich_help_panel=_COMPUTE)
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads of torch; torch's own choice unless given.", rich_help_panel=_COMPUTE)
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", help="Run folder, checkpoint folder or model.safetensors; the newest run unless given."
    ),
]

_KEY = re.compile(r"^(?:options: )?([a-z_]+)(?= )")


@contextmanager
def called_as_typed(names: Mapping[str, str]) -> Iterator[None]:
    """Let what is said of a wrong value name the option that was typed.

    Args:
        names: Options by the key of the configuration that holds their value.

    Raises:
        ConfigError: As from inside, with the option in place of its key.
    """
    try:
        yield
    except ConfigError as error:
        text = str(error)
        found = _KEY.match(text)
        if found is None or found[1] not in names:
            raise
        raise ConfigError(names[found[1]] + text[found.end() :]) from error
