"""The entry point, which collects the commands and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer

from autoseg._version import __version__
from autoseg.cli import (
    check_data,
    convert,
    decode,
    demo,
    evaluate,
    export,
    plan,
    plot,
    predict,
    retrain,
    search,
    show,
    spaces,
)
from autoseg.cli.streams import lasting_streams
from autoseg.errors import AutosegError, ConfigError, Interrupted, printable
from autoseg.files import of_machine
from autoseg.process import prepare_process
from autoseg.signals import STATUS as INTERRUPTED
from autoseg.signals import end_process, watched

UsageError: Any = typer.BadParameter.__bases__[0]
"""The class of Click, which typer includes."""
RUNS = (["search"], ["retrain"], ["demo"])
"""Arguments of the commands whose result is in a run directory, not on standard output."""

app = typer.Typer(
    name="autoseg",
    help="Neural architecture search for semantic segmentation: search, decode, retrain, export, draw.",
    epilog="Start with: autoseg demo --out runs/demo",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
MODULES = (demo, check_data, convert, plan, search, decode, retrain, evaluate, predict, export, plot, spaces, show)
COMMANDS = {module.__name__.rpartition(".")[2].replace("_", "-"): module for module in MODULES}
for name, module in COMMANDS.items():
    app.command(name)(getattr(module, name.replace("-", "_")))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autoseg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Neural architecture search for semantic segmentation."""


def main() -> None:
    """Run a command and exit: 0 done, 1 an internal error, 2 a user's error, 130 stopped by a signal."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())
    with watched() as was_stopped, lasting_streams() as output:
        try:
            status = run(sys.argv[1:])
            sys.stdout.flush()
            if output.failed and not status and sys.argv[1:2] not in RUNS:
                status = _fail(
                    f"standard output cannot be written ({output.failed.strerror}); give it another place"
                    " [output-unwritable]"
                )
        except BaseException:
            if not was_stopped():
                raise
            status = _interrupted()
        if status == INTERRUPTED or (status and was_stopped()):
            sys.stdout.flush()
            sys.stderr.flush()
            end_process()
    sys.exit(status)


class _Printable(logging.Formatter):
    """The message of a record, in which no letter commands a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status."""
    arguments = arguments or ["--help"]
    prepare_process()
    try:
        _refuse_empty(arguments)
        status = app(arguments, prog_name="autoseg", standalone_mode=False)
        if status == INTERRUPTED:  # typer's status for Ctrl-C outside of a run
            return _interrupted()
        return status if isinstance(status, int) else 0
    except AutosegError as error:
        if "--debug" in arguments:
            raise
        return _fail(f"{error} [{error.code}]")
    except UsageError as error:
        command = f" {arguments[0]}" if arguments[0] in COMMANDS else ""
        message = error.format_message().rstrip(".")
        return _fail(f"{message[:1].lower()}{message[1:]}; see `autoseg{command} --help`")
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stopped:
        return _interrupted(stopped if isinstance(stopped, Interrupted) else "interrupted")
    except Exception as reason:
        refused = of_machine(reason)
        if refused is None or "--debug" in arguments:
            raise
        return _fail(f"{refused} [{refused.code}]")


def _interrupted(said: object = "interrupted") -> int:
    print(printable(said), file=sys.stderr)
    return INTERRUPTED


def _refuse_empty(arguments: list[str]) -> None:
    """Raises: ConfigError: an empty argument, as from an unset variable; a path of it would be the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.find("=") == len(argument) - 1):
            name = argument.rstrip("=") or before
            raise ConfigError(f"the value after {name} is empty; give one, or leave it out", code="argument-empty")


def _fail(message: str) -> int:
    print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    return 2
