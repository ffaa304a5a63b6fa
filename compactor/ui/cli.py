"""The command `compactor`: its group of commands, and the exit code and message of every failure.

Exit codes: 0 done, 1 a ledger or an input was refused, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM, 141 the
reader of the pipe went away. No failure ends in a traceback.

Note: findings are no failures. They are part of the result, and the exit code is 0.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from compactor import __version__
from compactor.ui import running as live
from compactor.ui.brokering import assign, cancel
from compactor.ui.commands import append, compact, show, status
from compactor.ui.exporting import export, sql
from compactor.ui.importing import compare, import_
from compactor.ui.operating import backup, config, doctor, restore, systemd
from compactor.ui.options import INTERRUPTED, STOPPED_MESSAGE, TERMINATED, Terminated
from compactor.ui.reconcile_command import reconcile
from compactor.ui.replaying import diff, replay
from compactor.ui.sealing import cat, check_proof, keygen, prove, seal
from compactor.ui.serving import key, serve
from compactor.ui.stories import history
from compactor.ui.tailing import tail
from compactor.ui.verifying import rebuild, verify
from compactor.ui.watching import watch

PIPE_CLOSED = 141
DEBUG = "COMPACTOR_DEBUG"


class Frame(click.Group):
    """A group of commands whose failures become messages."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.ClickException as refusal:
            raise _made_printable(refusal) from None

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            # Help and the version are written before a command is invoked.
            if os.environ.get(DEBUG):
                raise
            _explain(error).show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            # A full disk or a closed pipe is met here and not while the interpreter ends, where nobody can answer it.
            sys.stdout.flush()
            return result
        except click.ClickException as refusal:
            raise _made_printable(refusal) from None
        except click.exceptions.Exit:
            raise
        except click.Abort:
            click.echo("\nNot confirmed, so nothing was done. --yes does it without asking.", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, Terminated) as stop:
            click.echo(STOPPED_MESSAGE, err=True)
            ctx.exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(PIPE_CLOSED)
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            raise _made_printable(_explain(error)) from error


def _made_printable(refusal: click.ClickException) -> click.ClickException:
    """A message that quotes names and arguments, which can neither steer a terminal nor show a private key."""
    from compactor.core.printable import printable_lines

    # Typed as final, and shown as it is.
    object.__setattr__(refusal, "message", printable_lines(refusal.message))
    return refusal


def _explain(error: Exception) -> click.ClickException:
    from compactor.books.failures import describe_failure

    if isinstance(error, OSError) and not error.filename:
        _forget_stdout()
        return click.ClickException(f"could not write the output: {error.strerror or error}")
    failure = describe_failure(error, "compactor")
    return (click.UsageError if failure.kind == "bad_team" else click.ClickException)(failure.message)


def _forget_stdout() -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not complain about it while it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"compactor {__version__}")
        ctx.exit()


@click.group(
    cls=Frame,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done (findings are no error), 1 a ledger or an input was refused, 2 wrong usage, 130 stopped "
    "by Ctrl-C, 143 by SIGTERM. COMPACTOR_DATA names the data directory; COMPACTOR_DEBUG=1 shows where a failure was.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def app() -> None:
    """An order ledger: an append-only log of order events becomes open orders and trades, exactly once.

    \b
    A data directory holds one ledger per team:
      data/team/alice/events.jsonl          the log; anybody may append lines to it
      data/team/alice/pending_orders.jsonl  derived: one line per open order
      data/team/alice/trades.jsonl          derived: one line per fill, never changed
      data/team/alice/findings.jsonl        derived: what was unreadable or suspicious

    \b
    Begin with:
      compactor append --team alice < events.jsonl
      compactor compact
      compactor show pending
    """


COMMANDS = (
    compact, append, show, status, import_, compare, watch, live.run, live.stream, serve, key, reconcile, assign,
    cancel, seal, cat, backup, restore, config, doctor, systemd,
)  # fmt: skip
for command in COMMANDS:
    app.add_command(command)
for command in (replay, diff, history):
    app.add_command(command)
for command in (export, sql, tail):
    app.add_command(command)
for command in (verify, rebuild, keygen, prove, check_proof):
    app.add_command(command)


def main() -> None:
    """Run the command line."""
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What cannot be said in the locale's encoding is written out instead of failing.
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="compactor")


def _open_missing_streams() -> None:
    """Give standard streams that the caller closed (`>&-`) to /dev/null, before a ledger's file gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _terminate(_signal: int, _frame: object) -> None:
    raise Terminated
