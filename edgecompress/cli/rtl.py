"""``edgecompress rtl``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run


@click.command("rtl")
@options.apply(
    (
        click.argument("model", metavar="[MODEL]", required=False),
        click.option(
            "--target",
            metavar="NAME|FILE",
            required=True,
            help="Device, by name (see targets list) or TOML file, of a family with a generator.",
        ),
        click.option(
            "-o",
            "--output",
            metavar="DIR",
            required=True,
            help="Folder for the Verilog, the test bench and its memories; made if it is missing.",
        ),
        click.option("--force", is_flag=True, help="Write into a folder that has files."),
        click.option(
            "--set",
            "settings",
            metavar="NAME=VALUE",
            multiple=True,
            help="Another number of the target, such as array_rows=4 or multiplier=lut; "
            "repeatable.",
        ),
        click.option(
            "--rows",
            "array_rows",
            metavar="N",
            type=click.IntRange(min=1),
            help="Rows of a systolic array; the same as --set array_rows=N.",
        ),
        click.option(
            "--columns",
            "array_columns",
            metavar="N",
            type=click.IntRange(min=1),
            help="Columns of a systolic array; the same as --set array_columns=N.",
        ),
        click.option(
            "--layer",
            metavar="NAME",
            help="Layer of MODEL for the test bench. Default: the first that the design can run.",
        ),
        click.option(
            "--data",
            metavar="SPEC",
            help="Inputs of MODEL: npz, npy, safetensors, IDX, a folder of images, or random:SEED. "
            "Default: random numbers from --seed.",
        ),
        click.option(
            "--pixels",
            metavar="N",
            type=click.IntRange(min=0),
            help="Pixels or rows of the layer in the test bench; 0 for all. Default: 64.",
        ),
        click.option(
            "--seed",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of random operands or inputs.",
        ),
        click.option("--run", "runs", is_flag=True, help="Run the test bench."),
        click.option(
            "--simulator",
            type=click.Choice(("icarus", "verilator")),
            default="icarus",
            show_default=True,
            help="Program for --run; has to be installed.",
        ),
        click.option(
            "--synthesize", is_flag=True, help="Count resources with Yosys, which has to be there."
        ),
    ),
    options.PREPROCESS,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def rtl(
    run: Run,
    /,
    *,
    model: str | None,
    target: str,
    output: str,
    force: bool,
    settings: tuple[str, ...],
    array_rows: int | None,
    array_columns: int | None,
    layer: str | None,
    data: str | None,
    pixels: int | None,
    seed: int,
    runs: bool,
    simulator: str,
    synthesize: bool,
    preprocess: str | None,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Write Verilog of a device's array, with a test bench that checks itself.

    Its operands are those of a layer of the quantized MODEL, or random codes without one. Where the
    outputs are not exact, or the cycles not those of the cost model, the exit code of --run is 9.

    \b
    edgecompress rtl small.onnx --target systolic-ws-32 --rows 8 --columns 8 -o rtl/ --run
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
    sizes = {"array_rows": array_rows, "array_columns": array_columns}
    asked = [f"{name}={size}" for name, size in sizes.items() if size is not None]
    with progress_on_stderr(quiet=run.quiet) as progress:
        report = device_api.rtl(
            target,
            output,
            model=model,
            settings=(*settings, *asked),
            layer=layer or "",
            data=data,
            pixels=pixels,
            seed=seed,
            simulator=simulator if runs else None,
            synthesize=synthesize,
            force=force,
            preprocess=preprocess,
            input_shapes=shapes,
            torch_factory=torch_factory,
            trust_input=trust_input,
            progress=progress,
        )
    publish(report, reports, output_format)
    if not report.agrees:
        raise VerificationFailed(
            "the generated design disagrees with the exact sums or with the cost model",
            where=output,
        )
