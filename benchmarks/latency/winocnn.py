"""VGG-16 on the WinoCNN targets against the published throughput.

    python benchmarks/latency/winocnn.py

Truth: 3.1 TOPS and 1.33 GOPS per DSP on the ZCU102 (abstract of arXiv 2107.04244). Operations are
two per multiply-accumulate of the direct convolution; images come in pairs, as the array takes
them.
"""

from __future__ import annotations

import json
from pathlib import Path

from networks import vgg16_works

from edgecompress.core.work import Cost
from edgecompress.hardware.cost import estimate
from edgecompress.hardware.models._winograd import Parameters
from edgecompress.hardware.target import Target, list_targets, load_target

COMMAND = "python benchmarks/latency/winocnn.py"
RESULTS = Path(__file__).parent / "results" / "winocnn.json"
PUBLISHED = {"winocnn-zcu102-w6": {"gops": 3100.0, "gops_per_dsp": 1.33}}
IMAGES = 2


def layer(name: str, macs: int, cost: Cost) -> dict[str, object]:
    return {
        "name": name,
        "gops": round(2 * macs / cost.latency_s / 1e9, 1),
        "cycles": round(cost.total_cycles),
        "bottleneck": cost.bottleneck,
        "macs_per_multiplier": round(cost.utilisation, 3),
    }


def measure(target: Target) -> dict[str, object]:
    works = vgg16_works(IMAGES)
    costs = estimate(works, target)
    macs = [work.operator.macs for work in works]
    seconds = sum(cost.latency_s for cost in costs)
    gops = 2 * sum(macs) / seconds / 1e9
    if not isinstance(target.parameters, Parameters):
        raise TypeError(target.name)
    return {
        "target": target.name,
        "images": IMAGES,
        "gops": round(gops, 1),
        "gops_per_dsp": round(gops / target.parameters.dsp_blocks, 4),
        "ms_per_image": round(seconds / IMAGES * 1e3, 3),
        "published": PUBLISHED.get(target.name),
        "layers": [
            layer(work.name, count, cost)
            for work, count, cost in zip(works, macs, costs, strict=True)
        ],
    }


def main() -> None:
    names = [name for name in list_targets() if name.startswith("winocnn")]
    found = [measure(load_target(name)) for name in names]
    for result in found:
        print(
            f"{result['target']}: {result['gops']} GOPS, {result['gops_per_dsp']} GOPS/DSP,"
            f" {result['ms_per_image']} ms/image; published: {result['published']}"
        )
        for one in result["layers"]:  # type: ignore[attr-defined]
            print(
                f"  {one['name']:8} {one['gops']:8.1f} GOPS  {one['cycles']:8} {one['bottleneck']}"
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"command": COMMAND, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
