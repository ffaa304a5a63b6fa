"""The command `reconcile`: once, for cron, or every few minutes.

`sync.reconcile` does the work. Note: missing or refused keys are exit code 4, on which a service manager does not
restart the program.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.ui.brokering import show_broker_errors
from compactor.ui.options import config_option, configuration, data_argument, json_option, say, teams_option
from compactor.ui.running import BAD_CREDENTIALS, CredentialsRefused, resolve_accounts

if TYPE_CHECKING:
    from compactor.broker.budget import Budget
    from compactor.settings.configuration import Configuration
    from compactor.sync.reconcile import Reconciler
    from compactor.sync.reconciled import Reconciled

_SEVERAL = 2
_REFUSED_SECONDS_MIN = 15.0


@click.command(short_help="Reconcile the ledgers with the broker.")
@data_argument
@config_option
@click.option("--once", is_flag=True, help="Once, and no more: for cron. Without it every 5 minutes, until Ctrl-C.")
@click.option("--dry-run", is_flag=True, help="Once; append nothing, and show what would be.")
@click.option(
    "--forget-missing", is_flag=True, help="End open orders that the broker does not have, after asking; with --once."
)
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option(
    "--record-positions",
    is_flag=True,
    help="Record the opening balances of positions anew, as of this run; with --once.",
)
@click.option("--reconcile-seconds", metavar="N", type=click.IntRange(10, 86_400), help="How often; default: 300.")
@teams_option
@json_option
def reconcile(
    data: Path,
    config: Path | None,
    once: bool,
    dry_run: bool,
    record_positions: bool,
    forget_missing: bool,
    yes: bool,
    reconcile_seconds: int | None,
    teams: str | None,
    as_json: bool,
) -> None:
    """Ask the broker how its orders stand, and append to the ledgers of DIR whatever they lack.

    The positions of the account are compared with the sum of all trades; the first run records what was there before.
    Orders that nobody knew are adopted; open orders that the broker does not list are asked for one by one. An order to
    which something happened in the last 10 seconds is left for later; with --once it is waited for. Keys come from the
    environment: ALPACA_API_KEY and ALPACA_SECRET_KEY, or APCA_API_KEY_ID and APCA_API_SECRET_KEY. Exit code 1 when the
    broker could not be asked or a ledger not be written, 4 when there are no keys or the broker refuses them; without
    --once only after 15 minutes of that (2 at the start).

    \b
    Example:
      compactor reconcile data --dry-run
      compactor reconcile data --once --json
    """
    found = configuration(data, config, {"reconcile_seconds": reconcile_seconds, "teams": teams})
    reconciler = _make_reconciler(data, found)
    if record_positions:
        if not once or dry_run:
            raise click.UsageError("--record-positions goes with --once, and not with --dry-run")
        reconciler.record_positions()
    if forget_missing and not (once or dry_run):
        raise click.UsageError("--forget-missing goes with --once or --dry-run")
    if once or dry_run:
        try:
            with show_broker_errors():
                if forget_missing and not dry_run and not yes:
                    _confirm_forgetting(reconciler)
                done = reconciler.run(dry_run=dry_run, settle=once and not dry_run, forget_missing=forget_missing)
        except click.ClickException as failure:
            if len(reconciler.errors) < _SEVERAL:
                raise
            _name_each(reconciler, failure)
            raise click.exceptions.Exit(BAD_CREDENTIALS if _are_all_refused(reconciler) else 1) from None
        _show(done, as_json)
        _exit_by_result(done)
        return
    _reconcile_for_ever(reconciler, found.settings.reconcile_seconds, as_json)


def _reconcile_for_ever(reconciler: Reconciler, every_seconds: int, as_json: bool) -> None:
    """Reconcile again and again, until the keys of all accounts have been refused for minutes, as by `run`."""
    from compactor.daemon.account_link import START_SECONDS, WORKED_SECONDS

    patience, refused_since, tries = START_SECONDS, None, 0
    while True:
        started = time.monotonic()
        pause = float(every_seconds)
        try:
            with show_broker_errors():
                done = reconciler.run()
            _show(done, as_json)
            _name_failures(done)
            patience, refused_since, tries = WORKED_SECONDS, None, 0
        except click.ClickException as failure:
            is_refused = isinstance(failure, CredentialsRefused) and _are_all_refused(reconciler)
            refused_since = None if not is_refused else started if refused_since is None else refused_since
            if refused_since is not None and started - refused_since >= patience:
                raise
            _name_each(reconciler, failure)
            if refused_since is not None:
                left = refused_since + patience - started
                pause, tries = min(pause, _REFUSED_SECONDS_MIN * 2**tries, max(left, 1.0)), tries + 1
                say(f"Tried again in {pause:.0f} s, for {left:.0f} s more.", err=True)
        sys.stdout.flush()
        time.sleep(max(1.0, pause - (time.monotonic() - started)))


def _are_all_refused(reconciler: Reconciler) -> bool:
    from compactor.broker.credentials import BadCredentials

    return all(isinstance(error, BadCredentials) for error in reconciler.errors.values())


def _name_each(reconciler: Reconciler, failure: click.ClickException) -> None:
    """Show why a run failed: of several accounts, for each of them."""
    if len(reconciler.errors) > 1:
        for name, error in reconciler.errors.items():
            say(f"account {name}: {error}", err=True)
    else:
        failure.show()


def _make_reconciler(data: Path, found: Configuration) -> Reconciler:
    from compactor.broker.adapters import open_broker
    from compactor.sync.answers import AskedAccount
    from compactor.sync.reconcile import Reconciler

    asked = [
        AskedAccount(one.name, open_broker(one.credentials, budget=_make_budget(found)), one.team, tuple(one.patterns))
        for one in resolve_accounts(found)
    ]
    return Reconciler(data, asked, teams=found.settings.teams)


def _confirm_forgetting(reconciler: Reconciler) -> None:
    """Ask whether the orders that the broker does not have are to be ended; names them."""
    found = [one for one in reconciler.run(dry_run=True).problems if one.kind == "order_not_found"]
    for one in found:
        say(f"{one.order_id}: is open here, and the broker says that it has no such order", err=True)
    if found:
        click.confirm(f"End {len(found)} orders that the broker does not have?", abort=True, err=True)


def _make_budget(found: Configuration) -> Budget:
    from compactor.broker.budget import BURST, Budget

    settings = found.settings
    return Budget(settings.requests_per_minute, left_percent=settings.requests_left_percent, burst=BURST)


_COLUMNS = ("team_id", "order_id", "event", "order_status", "symbol", "side", "qty", "price", "filled_qty", "ts")


def _show(done: Reconciled, as_json: bool) -> None:
    from msgspec import to_builtins

    from compactor.ui.output import columns, name_lines, show_json, show_table

    rows = [
        {"team_id": team.team_id, **{name: value for name, value in event.items() if name != "raw"}}
        for team in done.teams
        if team.error is None
        for event in team.events
    ]
    if as_json:
        show_json(rows)
        show_json({"difference": one.kind, "order_id": one.order_id, "detail": one.detail} for one in done.problems)
        show_json({"waiting": order_id} for order_id in done.waiting)
        show_json({"position": one.symbol, **to_builtins(one)} for one in done.positions if one.kind != "equal")
        show_json({"moved": order_id, "team_id": team} for order_id, team in done.moved.items())
        summary = {name: getattr(done, name) for name in ("dry_run", "orders", "events", "requests", "elapsed_ms")}
        show_json([{**summary, "differences": len(done.problems), "waiting": len(done.waiting)}])
        return
    show_table(columns(*_COLUMNS, numbers=("qty", "price", "filled_qty")), rows)
    sys.stdout.flush()
    would = "would be appended" if done.dry_run else "appended"
    say(f"{done.orders} orders compared, {done.events} events {would}, {done.requests} requests.", err=True)
    if done.positions:
        agreeing = sum(one.kind != "differs" for one in done.positions)
        say(f"{agreeing} of {len(done.positions)} positions are what the trades add up to.", err=True)
    if done.moved:
        would = "would move" if done.dry_run else "moved"
        found = ", ".join(sorted(set(done.moved.values())))
        say(f"{len(done.moved)} orders {would} from unassigned to {found}.", err=True)
    if done.waiting:
        say(f"{len(done.waiting)} orders were not quiet yet; the next run sees to them.", err=True)
    name_lines([": ".join(filter(None, (one.order_id, one.kind, one.detail))) for one in done.problems])


def _name_failures(done: Reconciled) -> None:
    for name, error in done.errors.items():
        say(f"account {name}: {error}", err=True)
    for team in done.failed:
        assert team.error is not None
        say(f"{team.team_id}: {team.error.message}", err=True)


def _exit_by_result(done: Reconciled) -> None:
    from compactor.broker.credentials import BadCredentials

    _name_failures(done)
    if any(isinstance(error, BadCredentials) for error in done.errors.values()):
        raise click.exceptions.Exit(BAD_CREDENTIALS)
    if done.errors or done.failed:
        raise click.exceptions.Exit(1)
