"""The command line as a whole: which commands there are, and which exit codes they end with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from reconciler.cli import audit, init, plan, run, settings, status, suspend, validate, version
from reconciler.cli.common import expected_errors

P = ParamSpec("P")
R = TypeVar("R")


class Commands(TyperGroup):
    """Exit code 1 for what was typed wrong, too: 2 means "changes" (`plan`) and nothing else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (a private type of the library)
        """As the library does."""
        return _with_exit_code_1(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 (a private type of the library)
        """As the library does; expected errors are told."""
        with expected_errors():
            return _with_exit_code_1(super().invoke, ctx)


def _with_exit_code_1(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return call(*args, **kwargs)
    except typer.TyperException as error:
        error.exit_code = 1
        raise


app = typer.Typer(
    name="reconciler",
    cls=Commands,
    help="Keeps running systems equal to a Git repository by replacing instances.",
    epilog="Start with `reconciler init`, then `reconciler validate`, `reconciler plan`, `reconciler run`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("init")(init.init)
app.command("validate")(validate.validate)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("suspend")(suspend.suspend)
app.command("resume")(suspend.resume)
app.add_typer(audit.commands, name="audit")
app.add_typer(settings.commands, name="settings")
app.command("version")(version.version)
