"""``edgecompress explore``."""

from __future__ import annotations

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run

PICKS = ("latency", "resources", "energy", "balanced")


@click.command("explore")
@options.apply(
    (
        click.argument("models", metavar="MODEL...", nargs=-1, required=True),
        click.option(
            "--target",
            metavar="NAME|FILE",
            required=True,
            help="Base: its family is explored, its numbers hold where nothing is varied.",
        ),
        click.option(
            "--part",
            metavar="NAME|FILE",
            help="Programmable device that has to hold the design: xczu9eg, xczu3eg, xc7z020 or a "
            "TOML file. Default: that of the target.",
        ),
        click.option(
            "--vary",
            metavar="NAME=VALUES",
            multiple=True,
            help="Number of the target to vary: array_rows=1:16 (all), 4,6 (a list), 8:64:8 (8 "
            "values), 1e9:20e9:16log (16, equal ratios); repeatable. Default: by family.",
        ),
        click.option(
            "--assume-bits",
            metavar="A/W",
            help="Take float activations as A bits and float weights as W, such as 8/4.",
        ),
        click.option("--max-dsp", metavar="N", type=click.IntRange(min=0), help="DSP blocks."),
        click.option(
            "--max-bram18", metavar="N", type=click.IntRange(min=0), help="18 Kib memories."
        ),
        click.option("--max-lut", metavar="N", type=click.IntRange(min=0), help="Look-up tables."),
        click.option(
            "--max-ports", metavar="N", type=click.IntRange(min=1), help="Ports to the memory."
        ),
        click.option("--max-bandwidth", metavar="SIZE", help="Peak of the memory a second: 8.5GB."),
        click.option(
            "--objective",
            type=click.Choice(("latency", "throughput")),
            default="latency",
            show_default=True,
            help="Time of one inference, or one over the inferences a second.",
        ),
        click.option(
            "--networks",
            type=click.Choice(("mean", "worst")),
            default="mean",
            show_default=True,
            help="Of several networks: mean or worst of their times over those of the base.",
        ),
        click.option(
            "--weight",
            "weights",
            metavar="W",
            type=float,
            multiple=True,
            help="Of a network in the mean; as many as networks. Default: equal.",
        ),
        click.option(
            "--points",
            metavar="N",
            type=click.IntRange(min=1),
            help="Look at N combinations drawn at random. Default: all, at most 200,000.",
        ),
        click.option(
            "--refine",
            "refined",
            metavar="N",
            type=click.IntRange(min=0),
            help="Look at N points more, near the best, between those of ranges; 0: none. "
            "Default: as many as of the grid, at most 500.",
        ),
        click.option(
            "--seed",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Of the order and of the random draw.",
        ),
        click.option(
            "--state",
            metavar="FILE",
            help="Keep what is done here; a run that was stopped goes on from it.",
        ),
        click.option(
            "--pick",
            type=click.Choice(PICKS),
            default="latency",
            show_default=True,
            help="Which point of the front --write-target takes.",
        ),
        click.option(
            "--write-target", metavar="FILE", help="Write the picked point as a target (TOML)."
        ),
    ),
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def explore(
    run: Run,
    /,
    *,
    models: tuple[str, ...],
    target: str,
    part: str | None,
    vary: tuple[str, ...],
    assume_bits: str | None,
    max_dsp: int | None,
    max_bram18: int | None,
    max_lut: int | None,
    max_ports: int | None,
    max_bandwidth: str | None,
    objective: str,
    networks: str,
    weights: tuple[float, ...],
    points: int | None,
    refined: int | None,
    seed: int,
    state: str | None,
    pick: str,
    write_target: str | None,
    input_shapes: tuple[str, ...],
    torch_factory: str | None,
    trust_input: bool,
    reports: tuple[str, ...],
    output_format: str,
) -> None:
    """Search the configurations of an accelerator for those that run MODEL best.

    Every combination of the varied numbers that can be built and fits the limits is priced, layer
    by layer; what no other beats in time, resources and energy at once is the front.

    \b
    edgecompress explore small.onnx --target winocnn-zcu102-w6 --part xczu3eg --write-target my.toml
    """
    from pathlib import Path

    from edgecompress.cli.logs import set_up_logs
    from edgecompress.cli.progress import progress_on_stderr
    from edgecompress.cli.publish import check_report_files, check_writable, publish
    from edgecompress.cli.reading import read_assumed_bits, read_input_shapes, read_option
    from edgecompress.cli.streams import say
    from edgecompress.core.errors import GateNotMet
    from edgecompress.core.quantities import read_size
    from edgecompress.hardware.target_text import target_text
    from edgecompress.pipeline.explore import ExploreRequest
    from edgecompress.pipeline.explore import explore as search
    from edgecompress.pipeline.explore_space import Limits
    from edgecompress.pipeline.explore_target import explored_target, picked_point
    from edgecompress.report.files import write_text

    set_up_logs(debug=run.debug)
    bandwidth = read_option(read_size, max_bandwidth, "--max-bandwidth") if max_bandwidth else None
    written = [path for path in (state, write_target) if path]
    check_report_files(reports, others=(target, part, *written), models=models)
    for place, path in enumerate(written):
        check_writable(path, others=(target, part, *written[:place]), models=models)
    with progress_on_stderr(quiet=run.quiet) as progress:
        report, space = search(
            ExploreRequest(
                models=models,
                target=target,
                part=part,
                vary=vary,
                limits=Limits(
                    dsp=max_dsp,
                    bram18=max_bram18,
                    lut=max_lut,
                    memory_ports=max_ports,
                    dram_bytes_per_s=None if bandwidth is None else float(bandwidth),
                ),
                objective="throughput" if objective == "throughput" else "latency",
                networks="worst" if networks == "worst" else "mean",
                weights=weights,
                points=points,
                refined=refined,
                seed=seed,
                state=Path(state) if state else None,
                input_shapes=read_input_shapes(input_shapes),
                assumed_bits=read_assumed_bits(assume_bits),
                torch_factory=torch_factory,
                trust_input=trust_input,
                progress=progress,
                tell=(lambda _: None) if run.quiet else say,
            )
        )
    if write_target and report.front:
        point = picked_point(report, pick)
        found = explored_target(report, space, point, Path(write_target).stem)
        write_text(Path(write_target), target_text(found, found.description))
    publish(report, reports, output_format)
    if not report.front:
        raise GateNotMet(
            "nothing fits the limits", hint="the report says what was dropped, and why"
        )
