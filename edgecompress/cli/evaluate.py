"""``edgecompress evaluate``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


@click.command("evaluate")
@options.apply(
    options.MODEL,
    (
        click.option(
            "--reference", metavar="FILE", help="Model to compare with, usually the original."
        ),
        click.option(
            "--data",
            metavar="SPEC",
            required=True,
            help="Data, with labels for accuracy: npz, npy, safetensors, IDX, a folder of images, "
            "or random:SEED.",
        ),
        click.option(
            "--target",
            metavar="NAME|FILE",
            help="Accelerator (see targets list): run a quantized model as its datapath computes "
            "it, too.",
        ),
        click.option(
            "--limit", metavar="N", type=click.IntRange(min=1), help="Use at most N samples."
        ),
    ),
    options.PREPROCESS,
    options.GATE_ACCURACY,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def evaluate(
    run: Run,
    /,
    *,
    model: str,
    reference: str | None,
    data: str,
    target: str | None,
    limit: int | None,
    preprocess: str | None,
    max_drop: str | None,
    min_accuracy: str | None,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Accuracy of MODEL on labelled data, or its fidelity to a reference on any data.

    With --reference also the ratio of the times in onnxruntime, one thread, both in one process.
    With --target also what is left of the accuracy when an accelerator computes the convolutions.

    \b
    edgecompress evaluate small.onnx --reference model.onnx --data test.npz --max-drop 1%
    """
    from edgecompress import api
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.progress import progress_on_stderr
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.cli.reading import read_gates, read_input_shapes
    from edgecompress.core.errors import UsageError
    from edgecompress.core.options import Gates

    set_up_logs(debug=run.debug)
    gates = read_gates({"max_drop": max_drop, "min_accuracy": min_accuracy}, Gates())
    if gates.max_drop is not None and reference is None:
        raise UsageError("--max-drop needs a --reference")
    shapes = read_input_shapes(input_shapes)
    check_report_files(reports, others=(data, target), models=(model, reference))
    with progress_on_stderr(quiet=run.quiet) as progress:
        progress("evaluating", 0, 0)
        report = api.evaluate(
            model,
            data,
            reference=reference,
            target=target,
            preprocess=preprocess,
            limit=limit,
            gates=gates,
            input_shapes=shapes,
            torch_factory=torch_factory,
            trust_input=trust_input,
        )
    publish(report, reports, output_format)
