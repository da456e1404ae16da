"""The command line: `edgernn VERB ..`, one file a verb. Verbs import what they need when they run."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from .. import __version__

VERBS: Final = (
    "train",
    "quantize",
    "export",
    "build",
    "verify",
    "eval",
    "benchmark",
    "simulate",
    "inspect",
    "run",
    "checks",
)

_EPILOG: Final = "exit codes: 0 ok, 1 a check failed, 2 bad usage or bad input, 130 interrupted"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors in the input become one line on stderr."""
    _open_closed_streams()
    verb = ""
    try:
        args = _parser().parse_args(argv)
        verb = f" {args.verb}"
        return _run(args)
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt as interrupt:
        _complain(verb, str(interrupt) or "interrupted")
        return 130


def _run(args: argparse.Namespace) -> int:
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        _abandon_stdout()
        return 0
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if args.verbose:
            import traceback

            traceback.print_exc()
        _complain(f" {args.verb}", _explain(error))
        try:
            sys.stdout.flush()
        except OSError:  # no room left for the output, perhaps
            _abandon_stdout()
        return 2


def _abandon_stdout() -> None:
    """Let stdout lead nowhere: Python must not complain again when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Let a standard stream that the caller closed (`>&-`) lead nowhere, before some other file gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edgernn", description="Recurrent networks for small devices, to the bit.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"edgernn {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        module: Any = import_module(f".{name}", __name__)
        verb = verbs.add_parser(name, help=module.HELP, description=module.HELP, epilog=_EPILOG)
        module.add_arguments(verb)
        verb.add_argument("-q", "--quiet", action="store_true", help=getattr(module, "QUIET", "print errors alone"))
        verb.add_argument("-v", "--verbose", action="store_true", help="more detail, and the traceback of an error")
        verb.add_argument("--json", action="store_true", help=getattr(module, "JSON", "print one JSON object"))
        verb.set_defaults(run=module.run)
    return parser


def _complain(verb: str, message: str) -> None:
    print(f"edgernn{verb}: {' '.join(message.split())}", file=sys.stderr)


def _explain(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        from ..engines import install_command

        package = (error.name or "").partition(".")[0]
        return f"this needs {package}, which is not installed: {install_command(package)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'input or output'}: {error.strerror}"
    return str(error) or type(error).__name__
