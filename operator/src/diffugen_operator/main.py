"""The console script `diffugen-operator`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvloop

from diffugen_operator import __version__
from diffugen_operator.kube.kubeconfig import LoginError
from diffugen_operator.process import Operator
from diffugen_operator.settings import Settings, defaults, described, flag_of, variable_of
from diffugen_operator.telemetry.logs import configure, log_loop_error
from diffugen_operator.telemetry.probes import ListenError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    if flags.pop("all_namespaces"):
        if flags["namespaces"] is not None:
            parser.error("--all-namespaces and --namespace contradict each other: give one of them")
        flags["namespaces"] = ""
    elif flags["namespaces"] is not None and not flags["namespaces"].strip(", "):
        parser.error("--namespace is empty: name a namespace, or use --all-namespaces")
    try:
        settings = Settings.read(flags)
    except ValueError as error:
        parser.error(str(error))
    configure(log_format=settings.log_format, level=settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(log_loop_error)
            runner.run(_operate(settings))
    except KeyboardInterrupt:
        sys.exit(130)
    except (LoginError, ListenError) as error:
        sys.exit(f"diffugen-operator: {error}")


async def _operate(settings: Settings) -> None:
    """Run the operator; it is made in the loop that it runs in."""
    await Operator(settings).run()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print in one line what is wrong with a flag or variable, and exit with EX_USAGE of sysexits.h."""
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="diffugen-operator",
        description="Turns LabeledDatasets into Jobs and published datasets.",
        epilog=f"Every flag can also be an environment variable: --http-port is {variable_of('http_port')}.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--all-namespaces", "-A", action="store_true", help="Serve all namespaces (the default).")
    explained = described()
    for name, default in defaults().items():
        parser.add_argument(
            flag_of(name),
            *(["--namespace", "-n"] if name == "namespaces" else []),
            dest=name,
            metavar="VALUE",
            help=f"{explained[name]} [{default}]".replace("%", "%%"),
        )
    return parser
