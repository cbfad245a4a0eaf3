"""Write the pages and schemas that are made from the code, or check that they are up to date.

python docs/generate.py           # write
python docs/generate.py --check   # exit 1 if a file is not what would be written
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from schemas import SCHEMAS, schema_text

from edgecompress.cli.entry import COMMANDS, program
from edgecompress.core import errors

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Made by docs/generate.py; change the code, not this file. -->\n"

EXAMPLES = {
    2: "an unknown option; `--rank` with `--energy`; `--max-size 100` without a unit; "
    "`--min-accuracy` on data without labels; a `--device` that is not there; a `--target-params` "
    "that cannot be had",
    3: "`--max-size`, `--max-latency`, `--max-drop`, `--min-accuracy`; outputs and reports are "
    "written first",
    4: "truncated file, not a model, a graph with a cycle, weights that are NaN",
    5: "no layer with float weights; a model that is compressed already",
    6: "wrong shape, NaN, labels that do not fit the model, a file that is no data",
    7: "unknown key in a recipe, target or plan; unknown target; PyTorch input without PyTorch",
    8: "no such file, no permission, disk full, output exists without `--force`, output is "
    "an input; `--checkpoint` is no checkpoint, or exists without `--resume` or `--force`",
    9: "optimised and unoptimised onnxruntime disagree; the loss of a training run is NaN or "
    "infinite; nothing is at the output's name",
    10: "out of memory; a file that is made to exhaust it",
    11: "a pickle, TorchScript or `--model` without `--trust-input`; external data outside the "
    "model's folder",
}


def cli_page() -> str:
    """All commands with all options."""
    context = click.Context(program, info_name="edgecompress")
    parts = [
        "# Command line\n",
        NOTICE,
        "\n".join(help_lines(program.help or "")),
        "Values with a unit: sizes `250KiB`, `100kB`, `1.5MB`; times `5ms`, `120us`; shares `50%` "
        "or `0.5`.\nThe `--target-*` options take a share of the dense model or an amount and say "
        "what may **remain**.\n",
        "Exit codes: [exit-codes.md](exit-codes.md). Reports: [reports.md](reports.md).\n",
    ]
    parts += [f"- [{name}](#edgecompress-{name}): {line}" for name, (_, line) in COMMANDS.items()]
    for command, inner in commands(program, context):
        parts.append(command_section(command, inner))
    return "\n".join(parts).rstrip() + "\n"


def commands(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command below a group, groups before what is in them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(name)
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def command_section(command: click.Command, context: click.Context) -> str:
    """One command: what it does, how it is called, its options."""
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = ["", f"## {context.command_path}", "", *help_lines(command.help or "")]
    lines += ["```", f"{context.command_path} {pieces}", "```", ""]
    records = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
    ]
    lines += ["| option | |", "|---|---|"]
    for record in records:
        if record:
            names, text = (cell.replace("|", "\\|") for cell in record)
            lines.append(f"| `{names}` | {text} |")
    return "\n".join(lines)


def help_lines(text: str) -> Iterator[str]:
    """The help text of click as Markdown: paragraphs kept as they are become code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.strip().startswith("\b")
        lines = [line.rstrip() for line in paragraph.strip("\n").splitlines()]
        body = [line for line in lines if line.strip() != "\b"]
        yield from ("```sh", *body, "```", "") if kept else (*body, "")


def exit_code_page() -> str:
    """All exit codes, from the exception classes."""
    rows = {
        0: ("done, and every limit that was set holds", ""),
        1: ("a bug; the traceback is on stderr", "please report it"),
    }
    for value in vars(errors).values():
        if isinstance(value, type) and value.__base__ is errors.EdgeCompressError:
            meaning = (value.__doc__ or "").splitlines()[0].rstrip(".")
            rows[value.exit_code] = (meaning, EXAMPLES[value.exit_code])
    rows[130] = ("interrupted (SIGINT); temporary files are gone", "Ctrl-C")
    rows[143] = ("terminated (SIGTERM); temporary files are gone", "a job that was cancelled")
    table = [f"| {code} | {meaning} | {example} |" for code, (meaning, example) in rows.items()]
    return "\n".join(
        [
            "# Exit codes",
            "",
            NOTICE,
            "Exit codes are public: a code keeps its meaning. Every error is one sentence on "
            "stderr, `error: ...`,\nusually with `hint: ...`; stdout has the report or nothing. "
            "Whatever the code, the input is untouched\nand nothing half-written is left.",
            "",
            "| code | meaning | examples |",
            "|---:|---|---|",
            *table,
            "",
            "A reader of stdout that goes away (`| head`) is no error.",
            "",
        ]
    )


def pages() -> dict[Path, Callable[[], str]]:
    """Every generated file."""
    made: dict[Path, Callable[[], str]] = {
        ROOT / "docs" / "cli.md": cli_page,
        ROOT / "docs" / "exit-codes.md": exit_code_page,
    }
    for name in SCHEMAS:
        path = ROOT / "edgecompress" / "report" / "schemas" / f"{name}.json"
        made[path] = lambda name=name: schema_text(name)  # type: ignore[misc]
    return made


def main() -> int:
    """Write or check all files."""
    check = "--check" in sys.argv[1:]
    stale = 0
    for path, make in pages().items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        word = "not up to date" if check else "written"
        sys.stdout.write(f"{path.relative_to(ROOT)}: {word}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
