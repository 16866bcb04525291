"""The ``ctrs`` program: its commands, and the one place where errors become a line and an exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer

from ctrs import __version__
from ctrs.cli import ablate, demo, evaluate, export, info, inspect, predict, prepare, presets, train, vectorize
from ctrs.errors import ConfigError, CtrsError
from ctrs.launcher import launched_rank

app = typer.Typer(
    name="ctrs",
    help="Turn aerial and satellite imagery into maps: prepare, train, eval, predict, vectorize.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ctrs {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("prepare")(prepare.prepare)
app.add_typer(presets.app, name="presets")
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("vectorize")(vectorize.vectorize)
app.command("info")(info.info)
app.command("export")(export.export)
app.command("ablate")(ablate.ablate)
app.add_typer(inspect.app, name="inspect")
app.command("demo")(demo.demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    Args:
        arguments: Without the program's name; None takes ``sys.argv``.
    """
    with _sigterm_stops():
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    if code and arguments is None and "torch" in sys.modules:
        _leave(code)
    return code


_AGAIN_S = 0.05


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops all work as Ctrl-C does."""


def _terminate(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, _ends_already)  # `timeout`, for one, sends it twice
    raise _Terminated


def _ends_already(*_: Any) -> None:
    pass


def _end_as_usual_in_child() -> None:
    """Let processes that are forked off, such as loaders, end by SIGTERM at once and without a word."""
    if signal.getsignal(signal.SIGTERM) in (_terminate, _ends_already):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_as_usual_in_child)


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Turn SIGTERM into a stop like that by Ctrl-C, except where a launcher or a caller watches over the processes."""
    alone = threading.current_thread() is threading.main_thread() and launched_rank() is None
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    before = sys.unraisablehook

    def hear_again(lost: Any) -> None:
        # Raised in a callback of the interpreter (of a weak reference, say), where exceptions are lost.
        if lost.exc_type is _Terminated:
            signal.signal(signal.SIGTERM, _terminate)
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()  # not from here, where exceptions are lost too
        else:
            before(lost)

    sys.unraisablehook = hear_again
    try:
        yield
    finally:
        sys.unraisablehook = before
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(given: list[str]) -> int:
    # OpenMP's threads (torch's) wait for each other by spinning; on a machine with other work that makes training many
    # times slower. A short spin costs nothing on an idle one. To be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with_traceback = "--verbose" in given or "-v" in given
    try:
        command = typer.main.get_command(app)
        if "_CTRS_COMPLETE" in os.environ:  # the shell asks for completions
            command(args=given, prog_name="ctrs")
        # Not command(), which would turn Ctrl-C into an exit without a word.
        with command.make_context("ctrs", given) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except CtrsError as error:
        message = _as_typed(str(error), given) if isinstance(error, ConfigError) else str(error)
        return _fail(_with_notes(message, error), error.exit_code, with_traceback=with_traceback)
    except _Terminated as error:
        return _fail(_with_notes("stopped by SIGTERM", error), 143)
    except KeyboardInterrupt as error:
        return _fail(_with_notes("stopped by Ctrl-C", error), 130)
    except typer.Abort:
        return _fail("stopped", 130)
    except BrokenPipeError:
        return 1
    except MemoryError:
        return _fail("out of memory; try a smaller --batch-size, --crop or window", 1, with_traceback=with_traceback)
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage, as typer found it
            return _fail(_usage_message(error), int(getattr(error, "exit_code", 2)))
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return _fail(_with_notes(f"{where}{error.strerror.lower()}", error), 1, with_traceback=with_traceback)
        text = " ".join(str(error).split()) or "no message"
        advice = "" if with_traceback else "; run again with --verbose for the traceback, and please report it"
        return _fail(f"unexpected {type(error).__name__}: {text}{advice}", 1, with_traceback=with_traceback)
    return 0


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter down.

    A backward pass that was left by Ctrl-C or an error has nodes in torch's queue that call into Python when they are
    destroyed; the C library does that after the interpreter is gone, which crashes instead of returning the code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a reader that has gone away
            stream.flush()
    os._exit(code)


def _as_typed(message: str, given: Sequence[str]) -> str:
    """Say a configuration key as the option that was typed.

    >>> _as_typed("val_fraction = 2.0 found, expected 0 to 0.5", ["prepare", "town", "--val-fraction", "2"])
    '--val-fraction 2.0 found, expected 0 to 0.5'
    """
    match = re.match(r"([a-z_]+?)(?:_px|_m2?)? = ", message)
    if match is None:
        return message
    option = f"--{match[1].replace('_', '-')}"
    typed = any(text == option or text.startswith(f"{option}=") for text in given)
    return f"{option} {message[match.end() :]}" if typed else message


def _with_notes(message: str, error: BaseException) -> str:
    """Add what the library noted on the way, such as where unfinished work is kept."""
    return "; ".join((message, *dict.fromkeys(getattr(error, "__notes__", ()))))


def _usage_message(error: Exception) -> str:
    message = str(error.format_message())  # type: ignore[attr-defined]  # looked up by the caller
    message = message.replace(": Value error, ", ": ") or "no command given"
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "ctrs")
    # More than fits is most often a pattern that the shell has expanded.
    hint = "; quote patterns ('*.tif') so that the shell leaves them alone" if "extra argument" in message else ""
    return f"{message.rstrip('.')}{hint}; see `{path} --help`"


def _fail(message: str, code: int, *, with_traceback: bool = False) -> int:
    if with_traceback:
        traceback.print_exc(file=sys.stderr)
    sys.stderr.write(f"error: {message}\n")
    return code
