"""stdout, stderr and exit codes as a shell sees them, with the use cases replaced by fakes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from interrupts import hear_interrupts

TESTS = Path(__file__).resolve().parent.parent

FAKE = """
import sys
sys.path.insert(0, {tests!r})
import made_reports as made
from edgecompress import device_api
from edgecompress.core import errors

def estimate(model, targets, input_shapes, **torch):
    {body}
    from edgecompress.report.forms import Estimate
    return made.estimate(names=({name!r},)).reports

device_api.estimate_latency = estimate
from edgecompress.cli import main
sys.exit(main(["estimate-latency", {name!r}, "--target", "t", *{arguments!r}]))
"""


def script(body: str = "pass", *arguments: str, name: str = "conv1") -> list[str]:
    code = FAKE.format(tests=str(TESTS), body=body, arguments=list(arguments), name=name)
    return [sys.executable, "-c", code]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )


def test_stdout_is_the_report_and_nothing_else() -> None:
    done = run(script("print('noise', file=sys.stderr)", "--output-format", "json"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["schema"] == "edgecompress.latency-report/1"


def test_a_gate_that_is_not_met_is_3_with_the_report_written(tmp_path: Path) -> None:
    reports = [str(tmp_path / f"r{suffix}") for suffix in (".json", ".md", ".html", ".txt")]
    arguments = [part for report in reports for part in ("--report", report)]
    done = run(script("pass", "--max-latency", "1us", *arguments))
    assert done.returncode == 3
    assert done.stderr.startswith("error: gate not met: max-latency is ")
    assert "NOT MET" in done.stdout
    assert not json.loads(Path(reports[0]).read_text())["gates"][0]["met"]
    assert all(Path(report).stat().st_size > 500 for report in reports)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.json", "r.md", "r.txt"]


def test_an_error_is_one_sentence_and_a_hint() -> None:
    body = "raise errors.Unsupported('nothing to compress', where='m.onnx', hint='see inspect')"
    done = run(script(body))
    assert done.returncode == 5
    assert done.stdout == ""
    assert done.stderr == "error: m.onnx: nothing to compress\nhint: see inspect\n"


def test_debug_adds_the_traceback() -> None:
    done = run(script("raise errors.Unsupported('no')", "--debug"))
    assert done.returncode == 5
    assert "Traceback" in done.stderr


def test_a_bug_keeps_its_traceback_and_is_1() -> None:
    done = run(script("{}['x']"))
    assert done.returncode == 1
    assert "error: a bug in edgecompress" in done.stderr
    assert "Traceback" in done.stderr


def test_running_out_of_memory_is_10() -> None:
    assert run(script("raise MemoryError('Unable to allocate 8 TiB')")).returncode == 10


def test_an_error_of_the_system_is_8() -> None:
    done = run(script("open('/nonexistent/x')"))
    assert done.returncode == 8
    assert done.stderr == "error: /nonexistent/x: No such file or directory\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [(), ("--output-format", "json")])
def test_a_full_stdout_is_8(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            script("pass", *arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 8
    assert done.stderr == f"error: stdout: cannot be written: {os.strerror(errno.ENOSPC)}\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    names = "tuple('x' * 200 + str(i) for i in range(5000))"
    body = f"return made.estimate(names={names}).reports"
    with subprocess.Popen(
        script(body, "--per-layer", "--output-format", "json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == b""


@pytest.mark.parametrize(("closing", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_closed_streams(closing: str, code: int) -> None:
    line = f'exec "$@" {closing}'
    done = run(["bash", "-c", line, "bash", *script()])
    assert done.returncode == code
    failing = run(["bash", "-c", line, "bash", *script("raise errors.Unsupported('no')")])
    assert failing.returncode == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, code: int, tmp_path: Path) -> None:
    body = textwrap.dedent(
        f"""
        import tempfile, time
        with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
            open({str(tmp_path / "ready")!r}, "w").close()
            time.sleep(60)
        """
    )
    indented = textwrap.indent(body, "    ").strip()
    with subprocess.Popen(
        script(indented),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - nothing runs beside it in the child
    ) as process:
        for _ in range(300):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == f"interrupted by {number.name}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_stdout(encoding: str) -> None:
    done = subprocess.run(
        script(name="Schicht_µ_層"),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0
    text = done.stdout.decode(encoding)
    assert "throughput" in text
    assert "Schicht" in text


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_any_width(columns: str) -> None:
    done = run(script(name="n" * 100), COLUMNS=columns)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= min(int(columns), 120)


def test_no_escape_sequence_without_a_terminal() -> None:
    assert "\x1b" not in run(script()).stdout


@pytest.mark.parametrize(("variable", "colored"), [("", True), ("1", False)])
def test_colors_in_a_terminal_unless_no_color(variable: str, colored: bool) -> None:
    pty = pytest.importorskip("pty")
    main, child = pty.openpty()
    environment = {**os.environ, "NO_COLOR": variable, "TERM": "xterm"}
    with subprocess.Popen(script(), stdout=child, stderr=subprocess.DEVNULL, env=environment):
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                break
            if not part:
                break
            text += part
    os.close(main)
    assert b"throughput" in text
    assert (b"\x1b[" in text) is colored


def test_names_cannot_act_on_either_stream() -> None:
    name = "\x1b]0;pwned\x07\n::error::x ##vso[task]y"
    body = f"raise errors.ModelInvalid('bad node ' + {name!r}, where={name!r})"
    for done in (run(script(name=name)), run(script(body))):
        for line in (done.stdout + done.stderr).splitlines():
            assert not line.lstrip().startswith("::")
            assert "##vso[" not in line
            assert "\x1b" not in line
            assert "\x07" not in line


@pytest.mark.parametrize(
    ("report", "code", "message"),
    [
        ("r.pdf", 2, ".pdf is not a form of report"),
        ("no/such/folder/r.json", 8, "no such folder"),
    ],
)
def test_reports_are_refused_before_the_work(
    report: str, code: int, message: str, tmp_path: Path
) -> None:
    done = run(script("raise AssertionError('started')", "--report", str(tmp_path / report)))
    assert done.returncode == code
    assert message in done.stderr


def test_a_report_never_overwrites_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model.json"
    model.write_text("weights")
    done = run(script("pass", "--report", str(model), name=str(model)))
    assert done.returncode == 8
    assert "would overwrite another file of this run" in done.stderr
    assert model.read_text() == "weights"


def test_no_arguments_shows_the_help_as_a_usage_error() -> None:
    done = run([sys.executable, "-m", "edgecompress"])
    assert done.returncode == 2
    assert "Commands:" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "m.onnx"), "error: Missing option '-o' / '--output'"),
        (("compress", "m.onnx", "-o", "o", "--bits", "5"), "error: Invalid value for '--bits'"),
        (("nonsense",), "error: No such command 'nonsense'"),
    ],
)
def test_usage_errors_are_2(arguments: tuple[str, ...], message: str) -> None:
    done = run([sys.executable, "-m", "edgecompress", *arguments])
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "\nhint: see edgecompress" in done.stderr
