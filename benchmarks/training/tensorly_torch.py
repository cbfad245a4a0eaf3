"""Side by side with tensorly-torch on the same 784-512-10 network and Fashion-MNIST.

    python -m benchmarks.training.tensorly_torch [--epochs 20] [--seeds 5] [--output FILE]

With --seeds 0 accuracy is left as the output file has it.

Same modes, same ranks, so the same number of parameters, and the same initial variance in both:
tensorly-torch's own initialisation gives a tensor train of standard deviation near zero. Of its two
implementations, `factorized` and `reconstructed`, both are measured. The tensor train of ours has
no counterpart for linear layers there; it stands beside their paired-mode train of equal ranks.

tensorly-torch contracts in a good order only with opt_einsum installed, so that is required.

Measured: a whole training step (forward, backward, Adam; no dropout) at batch 1, 16 and 64, CPU
time, one thread, all networks in one process in turn, some steps each; memory of a step by the
allocator; test accuracy over the seeds after training with the same recipe.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import cos, pi, prod
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.training.fashion_images import SPLITS, find_folder, read_split
from benchmarks.training.layer_speed import interleaved
from edgecompress.core.options import LayerRule
from edgecompress.core.training import TensorizeOptions
from edgecompress.training.factorized import load_format
from edgecompress.training.factorized.folding import Folding
from edgecompress.training.layers import TensorizedLinear
from edgecompress.training.memory import measure_memory
from edgecompress.training.tensorize import tensorize

RESULTS = Path(__file__).parent / "results" / "tensorly_torch.json"
BATCHES = (1, 16, 64)
RATE, BATCH, DROPOUT = 2e-3, 128, 0.1
HIDDEN = Folding((16, 32), (28, 28))
HEAD = Folding((2, 5), (16, 32))
TRAIN_HEAD = Folding((10,), (32, 16))
RANKS = {"tt": 20, "ttm": 20, "cp": 50, "tucker": 10}
FOUND = "ours ttm, ranks found"
PEERS = {"ttm": "blocktt", "cp": "cp", "tucker": "tucker"}


@dataclass(frozen=True, slots=True)
class Images:
    """Fashion-MNIST, normalised, flat."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--images", type=int, default=60_000, help="training images to use")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    try:
        import tltorch
    except ImportError:
        print("skipped: tensorly-torch is not installed (pip install tensorly-torch)")
        return
    if not torch.backends.opt_einsum.is_available():
        print("skipped: opt_einsum is not installed; tensorly-torch is 100 times slower without it")
        return
    images = load_images()
    if images is None:
        return
    torch.set_num_threads(1)
    makers = networks()
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "tensorly_torch": tltorch.__version__,
        "threads": 1,
        "rounds": options.rounds,
        "epochs": options.epochs,
        "seeds": list(range(options.seeds)),
        "training_images": options.images,
        "test_images": len(images.test),
        "step_cpu_us": step_times(makers, images, options.rounds),
        "memory_bytes": memory(makers, images),
        "accuracy": {},
    }
    if not options.seeds and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        kept = ("epochs", "seeds", "training_images", "accuracy")
        result |= {key: before[key] for key in kept}
    save(result, options.output)
    if not options.seeds:
        return
    for name, make in makers.items():
        if name.endswith("reconstructed") or name == FOUND:
            continue  # the same function as factorized; in fashion_mnist.json
        scores = [
            accuracy(make, images, seed, options.epochs, options.images)
            for seed in range(options.seeds)
        ]
        spread = stdev(scores) if len(scores) > 1 else 0.0
        result["accuracy"][name] = {"each": scores, "mean": mean(scores), "stdev": spread}
        print(f"{name}: {mean(scores):.4f} +- {spread:.4f} (n = {len(scores)})", flush=True)
        save(result, options.output)


def networks() -> dict[str, Callable[[int], nn.Module]]:
    """Makers by name, from a seed."""
    makers: dict[str, Callable[[int], nn.Module]] = {
        "dense": dense,
        "ours ttm, own folding": own_folding,
        FOUND: found,
    }
    for name in RANKS:
        makers[f"ours {name}"] = lambda seed, name=name: ours(name, seed)
        for way in ("factorized", "reconstructed") if name in PEERS else ():
            label = f"tensorly-torch {PEERS[name]} {way}"
            makers[label] = lambda seed, name=name, way=way: theirs(name, way, seed)
    return makers


def dense(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return network(nn.Linear(784, 512), nn.Linear(512, 10))


def network(hidden: nn.Module, head: nn.Module) -> nn.Module:
    return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(DROPOUT), head)


def own_folding(seed: int) -> nn.Module:
    """Paired modes as the format folds them, at a thirtieth of the parameters; the head dense."""
    torch.manual_seed(seed)
    kind = load_format("ttm")
    made = kind(kind.fold((512, 784)), (5,))
    made.reset((2 / 784) ** 0.5, torch.Generator().manual_seed(seed))
    return network(TensorizedLinear(made, torch.zeros(512)), nn.Linear(512, 10))


def found(seed: int) -> nn.Module:
    """Both layers in the format's own modes, with the ranks that training finds most often at a
    thirtieth of the parameters (``results/fashion_mnist.json``)."""
    net = dense(seed)
    rules = tuple(LayerRule(match=name, ranks=(rank,)) for name, rank in (("0", 8), ("3", 15)))
    options = TensorizeOptions(format="ttm", rules=rules, minimum_saving=-10.0)
    tensorize(net, options, generator=torch.Generator().manual_seed(seed))
    return net


def foldings(name: str) -> tuple[Folding, Folding]:
    return HIDDEN, TRAIN_HEAD if name == "tt" else HEAD


def ours(name: str, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    kind = load_format(name)
    layers = []
    for folding in foldings(name):
        made = kind(folding, tuple(min(RANKS[name], most) for most in kind.max_ranks(folding)))
        made.reset((2 / folding.shape[1]) ** 0.5, generator)
        layers.append(TensorizedLinear(made, torch.zeros(folding.shape[0])))
    return network(*layers)


def theirs(name: str, way: str, seed: int) -> nn.Module:
    """Their layers with our ranks, filled with our variance."""
    import tltorch

    generator = torch.Generator().manual_seed(seed)
    layers = []
    for folding in foldings(name):
        ranks = tuple(min(RANKS[name], m) for m in load_format(name).max_ranks(folding))
        if name == "tucker":  # theirs has the rows first
            split = len(folding.columns)
            ranks = (*ranks[split:], *ranks[:split])
        rank = {"ttm": (1, *ranks, 1), "cp": ranks[0], "tucker": ranks}[name]
        layer = tltorch.FactorizedLinear(
            folding.columns,
            folding.rows,
            bias=True,
            factorization=PEERS[name],
            rank=rank,
            implementation=way,
        )
        factors = [p for n, p in layer.weight.named_parameters() if not n.endswith("weights")]
        each = (2 / folding.shape[1] / prod(ranks)) ** (1 / (2 * len(factors)))
        with torch.no_grad():
            layer.bias.zero_()
            for key, parameter in layer.weight.named_parameters():
                if key.endswith("weights"):
                    parameter.fill_(1.0)
                else:
                    parameter.normal_(0.0, each, generator=generator)
        layers.append(layer)
    return network(*layers)


def step_times(
    makers: dict[str, Callable[[int], nn.Module]], images: Images, rounds: int
) -> dict[str, Any]:
    """A training step of every network, in microseconds, and as a share of the dense one."""
    times: dict[str, Any] = {}
    for batch in BATCHES:
        x, y = images.train[:batch], images.train_labels[:batch]
        calls = {name: _stepper(make(0), x, y) for name, make in makers.items()}
        measured = interleaved(calls, rounds)
        base = measured["dense"]
        times[str(batch)] = {
            name: {
                **asdict(spread),
                "share_of_dense": round(spread.median_us / base.median_us, 3),
                "p10_share_of_dense": round(spread.p10_us / base.p10_us, 3),
            }
            for name, spread in measured.items()
        }
        shown = ", ".join(
            f"{name} {entry['median_us']:.0f} us ({entry['share_of_dense']:.2f})"
            for name, entry in times[str(batch)].items()
        )
        print(f"step at batch {batch}: {shown}", flush=True)
    return times


def _stepper(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    net.eval()  # dropout takes the same time in all
    updater = torch.optim.Adam(net.parameters(), RATE, fused=True)

    def step() -> None:
        updater.zero_grad(set_to_none=True)
        cross_entropy(net(x), y).backward()
        updater.step()

    return step


def memory(makers: dict[str, Callable[[int], nn.Module]], images: Images) -> dict[str, Any]:
    """Of a step: parameters, gradients, state, activations, peak; and the peak without the fixed
    part, of the forward and backward pass alone."""
    found: dict[str, Any] = {}
    for batch in BATCHES:
        x, y = images.train[:batch].clone(), images.train_labels[:batch].clone()
        found[str(batch)] = {}
        for name, make in makers.items():
            taken = measure_memory(
                make(0),
                (x, y),
                lambda net, both: cross_entropy(net(both[0]), both[1]),
                lambda parameters: torch.optim.Adam(parameters, RATE, fused=True),
            )
            passes = taken.peak_bytes - taken.model_bytes + taken.gradient_bytes
            found[str(batch)][name] = {**asdict(taken), "pass_peak_bytes": passes}
        shown = ", ".join(
            f"{name} {entry['peak_bytes'] // 1000} kB (passes {entry['pass_peak_bytes'] // 1000})"
            for name, entry in found[str(batch)].items()
        )
        print(f"memory at batch {batch}: {shown}", flush=True)
    return found


def accuracy(
    make: Callable[[int], nn.Module], images: Images, seed: int, epochs: int, count: int
) -> float:
    """Test accuracy after training: Adam, half a cosine to zero."""
    net = make(seed)
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    updater = torch.optim.Adam(net.parameters(), RATE, fused=True)
    steps, done = epochs * (count // BATCH), 0
    for _ in range(epochs):
        shuffled = torch.randperm(count, generator=order)
        for rows in shuffled[: count // BATCH * BATCH].split(BATCH):
            for group in updater.param_groups:
                group["lr"] = RATE * (1 + cos(pi * done / steps)) / 2
            updater.zero_grad(set_to_none=True)
            cross_entropy(net(images.train[rows]), images.train_labels[rows]).backward()
            updater.step()
            done += 1
    net.eval()
    with torch.no_grad():
        guesses = torch.cat([net(part).argmax(1) for part in images.test.split(1000)])
    return float((guesses == images.test_labels).float().mean())


def load_images() -> Images | None:
    """None where the data are not at hand."""
    folder = find_folder()
    if folder is None:
        return None
    arrays = []
    for split in SPLITS:
        pixels, labels = read_split(folder, split)
        rows = (pixels.reshape(-1, 784) / np.float32(255) - 0.286) / 0.353
        arrays += [torch.from_numpy(rows).float(), torch.from_numpy(labels)]
    return Images(*arrays)


def save(result: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


if __name__ == "__main__":
    main()
