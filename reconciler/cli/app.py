"""The command line as a whole: which commands there are, and which exit codes they end with.

A command's module is imported when it is asked for: the libraries of the daemon take a second to load, and shell
completion starts this program at every press of the key.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

from reconciler.cli.common import expected_errors

P = ParamSpec("P")
R = TypeVar("R")

COMMANDS = {
    "init": ("init", "init"),
    "validate": ("validate", "validate"),
    "plan": ("plan", "plan"),
    "run": ("run", "run"),
    "status": ("status", "status"),
    "suspend": ("suspend", "suspend"),
    "resume": ("suspend", "resume"),
    "promote": ("suspend", "promote"),
    "proxy": ("proxy", "commands"),
    "audit": ("audit", "commands"),
    "settings": ("settings", "commands"),
    "version": ("version", "version"),
}
"""The name of each command, to its module in this package and to the function, or group of commands, in there."""


class Commands(TyperGroup):
    """Exit code 1 for what was typed wrong, too: 2 means "changes" (`plan`) and nothing else."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 (a private type of the library)
        """In the order in which a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command, imported at the first time."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = _load(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """As the library does, which needs all commands to suggest one for a misspelt one."""
        if args[0] not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """As the library does."""
        return _with_exit_code_1(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """As the library does; expected errors are told."""
        with expected_errors():
            return _with_exit_code_1(super().invoke, ctx)


def _load(name: str) -> Any:  # noqa: ANN401
    module, attribute = COMMANDS[name]
    found = getattr(import_module(f"reconciler.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    command = get_command(found)
    command.name = name
    return command


def _with_exit_code_1(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return call(*args, **kwargs)
    except typer.TyperException as error:
        error.exit_code = 1
        raise


app = typer.Typer(
    name="reconciler",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="Start with `reconciler init`, then `reconciler validate`, `reconciler plan`, `reconciler run`.")
def root() -> None:
    """Keeps running systems equal to a Git repository by replacing instances."""
