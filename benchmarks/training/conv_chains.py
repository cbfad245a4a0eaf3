"""Time and peak memory of a training step of tensorized convolutions, three ways.

    python -m benchmarks.training.conv_chains [--rounds 10] [--output FILE]

LeNet on 28x28 and ResNet-20 on 32x32 pictures, batch 128, Adam, random pictures and weights (seed
0): the dense network; factors whose intermediate feature maps autograd keeps ("kept"); and as the
layers are run, which makes them again going back, some samples at a time ("again"). Each format at
the ranks that `train` starts from and at a tenth of each layer's parameters. One thread, one
process, the three in turn in an order drawn anew each round, CPU time of a step; peak memory by the
allocator and as predicted from shapes.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training.layer_speed import interleaved
from edgecompress.core.options import ParameterRatio
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.factorized.kernels import Window, plain_kernels
from edgecompress.training.layers import TensorizedConv2d, kernel_pieces
from edgecompress.training.memory import measure_memory, predict_memory
from edgecompress.training.tensorize import tensorize

RESULTS = Path(__file__).parent / "results" / "conv_chains.json"
BATCH = 128
NETWORKS = {"lenet": (1, 28, 28), "resnet20": (3, 32, 32)}
FORMATS = ("tt", "cp", "tucker", "auto")
RANKS = {"start": None, "tenth": ParameterRatio(0.1)}


class _Kept(TensorizedConv2d):
    """Autograd keeps what stands between the convolutions."""

    def compute(self, x: Tensor) -> Tensor:
        made = self.factorization
        window = Window.of(self.stride, self.padding, self.dilation, made.folding.kernel)
        return plain_kernels(x, self.bias, kernel_pieces(made), window)


def kept(network: nn.Module) -> nn.Module:
    """A copy whose convolutions keep everything."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, TensorizedConv2d):
            module.__class__ = _Kept
    return copied


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Of a batch."""
    return nn.functional.cross_entropy(network(batch[0]), batch[1])


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """As in training."""
    return torch.optim.Adam(parameters, foreach=False)


class _Step:
    """One update of a copy."""

    def __init__(self, network: nn.Module, batch: tuple[Tensor, ...]) -> None:
        self.network, self.batch = copy.deepcopy(network), batch
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.network, self.batch).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """All formats and ranks of a network."""
    generator = torch.Generator().manual_seed(0)
    shape = NETWORKS[name]
    sample = SampleShape(inputs=(shape,), dtypes=("float32",), classes=10)
    dense = load_architecture(name).build(sample, generator)
    pictures = torch.randn(BATCH, *shape, generator=generator)
    batch = (pictures, torch.randint(0, 10, (BATCH,), generator=generator))
    rows = []
    for form in FORMATS:
        for level, ranks in RANKS.items():
            again = copy.deepcopy(dense)
            tensorize(again, TensorizeOptions(format=form, ranks=ranks), generator=generator)
            networks = {"dense": dense, "kept": kept(again), "again": again}
            steps = {key: _Step(network, batch) for key, network in networks.items()}
            memory = {
                key: {
                    "predicted": asdict(predict_memory(network, batch, loss, adam)),
                    "measured": asdict(measure_memory(network, batch, loss, adam)),
                }
                for key, network in networks.items()
            }
            times = interleaved(steps, rounds, warm=0, repeats=1)
            rows.append(
                {
                    "network": name,
                    "format": form,
                    "ranks": level,
                    "step": {key: asdict(spread) for key, spread in times.items()},
                    "memory": memory,
                }
            )
            print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    step, memory = row["step"], row["memory"]
    time = step["again"]["median_us"] / step["kept"]["median_us"]
    beside = step["again"]["median_us"] / step["dense"]["median_us"]
    peaks = {key: both["measured"]["peak_bytes"] for key, both in memory.items()}
    return (
        f"{row['network']} {row['format']} {row['ranks']}: step again/kept {time:.2f}, again/dense "
        f"{beside:.2f}; dense peak over kept {peaks['dense'] / peaks['kept']:.2f}, over again "
        f"{peaks['dense'] / peaks['again']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in NETWORKS for row in measure(name, options.rounds)]
    result = {
        "torch": torch.__version__,
        "threads": 1,
        "rounds": options.rounds,
        "batch": BATCH,
        "seed": 0,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
