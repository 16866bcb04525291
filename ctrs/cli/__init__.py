"""The command line: parse, build the configuration, one library call, render. typer and rich live here and nowhere else."""
