"""The commands of single orders: `cancel` asks the broker to end one, and `assign` says whose one is.

`broker.placing` and `books.assign` do the work. Note: missing or refused keys are exit code 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.options import config_option, configuration, data_option, json_option, say, team_option
from compactor.ui.running import CredentialsRefused, resolve_accounts

if TYPE_CHECKING:
    from compactor.settings.accounts import Account


@contextmanager
def show_broker_errors() -> Iterator[None]:
    """Show failures of the broker, and a held turn, as messages."""
    from compactor.books.turns import ReconcileBusy
    from compactor.broker.credentials import BadCredentials
    from compactor.broker.port import BrokerError

    try:
        yield
    except BadCredentials as error:
        raise CredentialsRefused(str(error)) from None
    except (BrokerError, ReconcileBusy) as error:
        raise click.ClickException(str(error)) from None


@click.command(short_help="Say whose an order is: it moves to that team's ledger.")
@click.argument("order_id")
@click.argument("team")
@click.option("--create", is_flag=True, help="TEAM is new: make its ledger.")
@data_option
@config_option
@json_option
def assign(order_id: str, team: str, create: bool, data: Path, config: Path | None, as_json: bool) -> None:
    """Move an order, its trades and its legs to the ledger of TEAM.

    TEAM has a ledger, or stands in the settings; one that is new takes --create.

    Its events are copied there, and the old ledger is told that it has left: its trades are taken back there by lines
    of their own. Whatever stops it, the same command completes it; and it can be moved back in the same way.

    \b
    Example:
      compactor show pending --team unassigned
      compactor assign 61e69015-8549-4bfd-b9c3-01e75843f47d alice
    """
    from compactor.books.assign import CannotAssign
    from compactor.books.assign import assign as move
    from compactor.ui.output import show_json

    teams = None if create else configuration(data, config, {}).settings.teams
    with show_broker_errors():
        try:
            done = move(data, order_id, team, teams=teams)
        except CannotAssign as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        show_json([done])
    elif not done.from_teams and not done.events:
        say(f"{order_id} is in the ledger of {team} already.", err=True)
    else:
        legs = f" with {len(done.orders) - 1} legs" if len(done.orders) > 1 else ""
        came = f"from {', '.join(sorted(set(done.from_teams)))}" if done.from_teams else "which had it in part"
        say(f"{order_id}{legs}: {done.events} events copied to {team}, {came}.")


@click.command(short_help="Ask the broker to cancel an order, or all of a team's.")
@click.argument("order_id", required=False)
@click.option("--all", "every", is_flag=True, help="Every open order of --team.")
@team_option("The team whose open orders are canceled with --all.")
@click.option("--account", metavar="NAME", help="The account that the orders are in; default: every one is tried.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@data_option
@config_option
@json_option
def cancel(
    order_id: str | None,
    every: bool,
    team: str | None,
    account: str | None,
    yes: bool,
    data: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Ask the broker to cancel an order, or every open order of a team, after asking you.

    An order is open until the broker says that it is canceled; a fill can still win. What the broker says right after
    the request is in the log when this returns. Exit code 1 when one could not be canceled; the others are.

    \b
    Example:
      compactor cancel 61e69015-8549-4bfd-b9c3-01e75843f47d
      compactor cancel --all --team alice
    """
    if (order_id is None) == (not every) or (every and team is None):
        raise click.UsageError("expected an ORDER_ID, or --all with --team T; found neither or both")
    orders = _find_open_orders(data, team) if every else [order_id or ""]
    if not orders:
        say(f"{team} has no open orders as of the last compact.", err=True)
        return
    accounts = resolve_accounts(configuration(data, config, {}), account)
    kinds = sorted({"paper" if one.credentials.paper else "REAL MONEY" for one in accounts})
    if not yes:
        what = f"{len(orders)} open orders of {team}" if every else f"order {orders[0]}"
        click.confirm(f"Cancel {what} ({' and '.join(kinds)})?", abort=True, err=True)
    results = list(_cancel_each(data, accounts, orders))
    if as_json:
        from compactor.ui.output import show_json

        show_json(results)
    for one in results:
        if not as_json and one["error"] is None:
            say(f"{one['order_id']}: cancel requested")
        elif one["error"] is not None:
            is_named = one["order_id"] in one["error"]
            say(one["error"] if is_named else f"{one['order_id']}: {one['error']}", err=True)
    if any(one["error"] is not None for one in results):
        raise click.exceptions.Exit(1)


def _find_open_orders(data: Path, team: str | None) -> list[str]:
    """Find the open orders of a team, without legs, which are canceled with their parent."""
    from compactor.books.compact import read_rows

    rows = list(read_rows(data, "pending", team=team))
    ids = {row["order_id"] for row in rows}
    return [row["order_id"] for row in rows if row.get("parent_order_id") not in ids]


def _cancel_each(data: Path, accounts: Sequence[Account], orders: Sequence[str]) -> Iterator[dict[str, Any]]:
    from compactor.broker.placing import Trader
    from compactor.broker.port import BrokerError, NotFound

    with ExitStack() as stack:
        traders = [stack.enter_context(Trader(data, one.credentials)) for one in accounts]
        for order_id in orders:
            error: str | None = None
            with show_broker_errors():
                for trader in traders:
                    try:
                        trader.cancel(order_id)
                        error = None
                        break
                    except NotFound as missing:
                        error = str(missing)
                    except BrokerError as failure:
                        error = str(failure)
                        break
            yield {"order_id": order_id, "error": error}
