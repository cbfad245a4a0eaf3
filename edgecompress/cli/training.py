"""One run of ``train``: from options to a report, in one process or in each of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgecompress.cli.entry import Interrupted, Run


def run_training(values: Mapping[str, Any], run: Run) -> None:
    """Read the options, train, write reports, judge the gates.

    Of several processes that ``torchrun`` started, the first alone says and writes anything.

    Raises:
        EdgeCompressError: Of the class that says what went wrong.
        Interrupted: A signal ended the training; the checkpoint is whole.
    """
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.publish import check_report_files, check_writable, publish
    from edgecompress.cli.streams import say
    from edgecompress.cli.training_asked import read_training_options, settle_training
    from edgecompress.cli.training_progress import training_on_stderr
    from edgecompress.pipeline.outputs import files_read
    from edgecompress.pipeline.train import check_files, prepare_torch, run_train

    set_up_logs(debug=run.debug)
    asked = read_training_options(values)
    request = settle_training(asked)
    check_files(request)
    read = tuple(str(path) for path in files_read(asked.inputs))
    if asked.checkpoint:
        check_writable(asked.checkpoint, others=(*read, asked.output))
    check_report_files(asked.reports, others=(*read, asked.output, asked.checkpoint))
    prepare_torch()
    from edgecompress.training.distributed import is_first_process

    first = is_first_process()
    with training_on_stderr(quiet=run.quiet or not first) as (progress, on_training):
        try:
            report = run_train(replace(request, progress=progress, on_training=on_training))
        except Interrupted:
            if first and request.checkpoint and request.checkpoint.exists():
                say(f"{request.checkpoint} has the state of the run; --resume goes on from it")
            raise
    if report is not None:
        publish(report, asked.reports, asked.output_format)
