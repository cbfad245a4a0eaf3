"""What ``compress``, ``decompose`` and ``quantize`` have in common: one run from file to report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecompress.cli.entry import Run


def run_command(command: str, values: Mapping[str, Any], run: Run) -> None:
    """Read the options, compress, write plan and reports, judge the gates.

    Raises:
        EdgeCompressError: Of the class that says what went wrong.
    """
    from edgecompress.cli.asked import from_options, settle
    from edgecompress.cli.described import settings_as_text
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.progress import progress_on_stderr
    from edgecompress.cli.publish import check_report_files, check_writable, publish
    from edgecompress.cli.reading import read_input_shapes
    from edgecompress.pipeline.compress import run_compress
    from edgecompress.pipeline.outputs import check_output, external_data, files_read
    from edgecompress.pipeline.plan_file import plan_to_json
    from edgecompress.pipeline.request import CompressRequest
    from edgecompress.report.files import write_text

    set_up_logs(debug=run.debug)
    asked = from_options(command, values)
    settings = settle(asked)
    written = (asked.output, asked.plan_file, *asked.reports)
    inputs = (*asked.inputs, *external_data((asked.model,), written=written))
    check_output(Path(asked.output), inputs=inputs, force=asked.force)
    read = tuple(str(path) for path in files_read(inputs))
    check_writable(asked.plan_file, others=(*read, asked.output))
    check_report_files(asked.reports, others=(*read, asked.output, asked.plan_file))
    with progress_on_stderr(quiet=run.quiet) as progress:
        report, plan = run_compress(
            CompressRequest(
                command=command,
                model=Path(asked.model),
                output=Path(asked.output),
                decompose=settings.decompose,
                quantize=settings.quantize,
                heal=settings.heal,
                data=asked.data,
                calibration=asked.calibration,
                test_data=asked.test_data,
                preprocess=settings.preprocess,
                targets=settings.targets,
                gates=settings.gates,
                input_shapes=read_input_shapes(asked.input_shapes),
                torch_factory=asked.torch_factory,
                trust_input=asked.trust_input,
                plan=Path(asked.plan) if asked.plan else None,
                seed=settings.seed,
                force=asked.force,
                progress=progress,
                settings=settings_as_text(settings, asked),
            )
        )
    write_text(Path(asked.plan_file), plan_to_json(plan))
    publish(report, asked.reports, asked.output_format)
