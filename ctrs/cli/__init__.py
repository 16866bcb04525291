"""The command line: parse, build the configuration, one library call, render. typer and rich live only here."""
