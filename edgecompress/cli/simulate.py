"""``edgecompress simulate``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


@click.command("simulate")
@options.apply(
    options.MODEL,
    (
        click.option(
            "--target",
            metavar="NAME|FILE",
            required=True,
            help="Device, by name (see targets list) or TOML file, of a family with a simulator.",
        ),
        click.option(
            "--layer",
            "layers",
            metavar="NAME",
            multiple=True,
            help="Only this convolution or matrix product; repeatable.",
        ),
        click.option(
            "--data",
            metavar="SPEC",
            help="Inputs: npz, npy, safetensors, IDX, a folder of images, or random:SEED. Default: "
            "random numbers from --seed.",
        ),
        click.option(
            "--samples",
            metavar="N",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Inputs to take.",
        ),
        click.option(
            "--rows",
            metavar="N",
            type=click.IntRange(min=0),
            help="Pixels or rows of each layer, of its first image; 0 for all of all images. "
            "Default: 64.",
        ),
        click.option(
            "--seed",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of random inputs, and of the draw from --data.",
        ),
    ),
    options.PREPROCESS,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def simulate(
    run: Run,
    /,
    *,
    model: str,
    target: str,
    layers: tuple[str, ...],
    data: str | None,
    samples: int,
    rows: int | None,
    seed: int,
    preprocess: str | None,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Run the layers of a quantized MODEL on the simulated array of a device, with real integers.

    The cycles are compared with the cost model, the results with onnxruntime's integers; where they
    differ the exit code is 9, after the report.

    \b
    edgecompress simulate small.onnx --target systolic-ws-32 --data test.npz
    """
    from edgecompress import device_api
    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.progress import progress_on_stderr
    from edgecompress.cli.publish import check_report_files, publish
    from edgecompress.cli.reading import read_input_shapes
    from edgecompress.core.errors import VerificationFailed

    set_up_logs(debug=run.debug)
    shapes = read_input_shapes(input_shapes)
    check_report_files(reports, others=(target, data), models=(model,))
    with progress_on_stderr(quiet=run.quiet) as progress:
        report = device_api.simulate(
            model,
            target,
            data=data,
            layers=layers,
            samples=samples,
            rows=rows,
            seed=seed,
            preprocess=preprocess,
            input_shapes=shapes,
            torch_factory=torch_factory,
            trust_input=trust_input,
            progress=progress,
        )
    publish(report, reports, output_format)
    if not report.agrees:
        raise VerificationFailed(
            "the simulator disagrees with onnxruntime or with the cost model", where=model
        )
