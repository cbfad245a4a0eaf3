"""Runs killed at random moments, resumed until they end, against one that nobody disturbed.

    python -m benchmarks.training.resume [--kills 4] [--samples 12000] [--epochs 3]

Fashion-MNIST, 784-512-10 in tensor trains whose ranks fall while they train; every case is a
child process that gets SIGKILL after a random time, again and again, and is then left alone. All
bytes of the final weights, and the history without its times, have to be those of a child that ran
through. `EDGECOMPRESS_DATA` names the folder that holds `datasets/fashion_mnist`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training.fashion_images import find_folder, read_split
from edgecompress.core.options import FixedRanks
from edgecompress.core.training import (
    AdaptationOptions,
    PrecisionOptions,
    TensorizeOptions,
    TrainOptions,
)
from edgecompress.training.architectures import SampleShape, load_architecture
from edgecompress.training.batches import TrainingData
from edgecompress.training.loop import train_network
from edgecompress.training.progress import RunOptions
from edgecompress.training.tensorize import tensorize

RESULTS = Path(__file__).parent / "results" / "resume.json"
ADAPTING = AdaptationOptions(strength=0.3, warm_up=(0.0, 0.3), target_params=12_000, settle=0.7)
PLAIN = TrainOptions(adaptation=ADAPTING, batch=128, patience=50)
CASES = {
    "tensor trains, adam": PLAIN,
    "sampled factors, momentum": replace(
        PLAIN,
        adaptation=replace(ADAPTING, inference="bayesian"),
        optimizer="momentum",
        learning_rate=2e-2,
    ),
    "4-bit factors, narrow state": replace(
        PLAIN,
        precision=PrecisionOptions(master_bits=16, state_bits=16, rounding="stochastic"),
    ),
}


def samples(count: int) -> TrainingData | None:
    """The first pictures; None, with the reason said, if there are no data."""
    folder = find_folder()
    if folder is None:
        return None
    pixels, labels = read_split(folder, "train")
    inputs = (pixels[:count].reshape(-1, 784).astype(np.float32) / 255 - 0.2860) / 0.3530
    return TrainingData(inputs=(inputs,), targets=labels[:count], task="classification")


def child(case: str, count: int, epochs: int, state: Path, output: Path) -> None:
    """One run, resumed if it can be; what it ends with goes to ``output``."""
    torch.set_num_threads(1)
    data = samples(count)
    if data is None:
        raise SystemExit("no data")
    shape = SampleShape(inputs=((784,),), dtypes=("float32",), classes=10)
    generator = torch.Generator().manual_seed(0)
    network = load_architecture("mlp").build(shape, generator, dropout=0.1)
    options = TensorizeOptions(format="tt", ranks=FixedRanks((20,)))
    tensorize(network, options, generator=generator)
    run = RunOptions(device="cpu", checkpoint=state, resume=True, checkpoint_steps=10)
    result = train_network(network, data, replace(CASES[case], epochs=epochs), run=run)
    digest = hashlib.sha256()
    for name, parameter in sorted(result.network.named_parameters()):
        digest.update(name.encode() + parameter.detach().contiguous().numpy().tobytes())
    facts = [repr(replace(fact, elapsed_s=0.0)) for fact in result.history]
    last = result.history[-1]
    found = {
        "weights_sha256": digest.hexdigest(),
        "history_sha256": hashlib.sha256("".join(facts).encode()).hexdigest(),
        "parameters": last.parameters,
        "cuts": sum(fact.cuts for fact in result.history),
        "validation_accuracy": last.score,
        "steps": result.steps,
    }
    output.write_text(json.dumps(found))


def start(
    case: str, arguments: argparse.Namespace, folder: Path, name: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.training.resume", "--child", case]
    command += ["--samples", str(arguments.samples), "--epochs", str(arguments.epochs)]
    command += ["--folder", str(folder), "--name", name]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def compare(case: str, arguments: argparse.Namespace, draw: random.Random) -> dict[str, Any]:
    """One case: undisturbed, then killed."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        began = time.monotonic()
        if start(case, arguments, folder, "whole").wait():
            raise SystemExit(f"{case}: the run failed")
        whole_s = time.monotonic() - began
        state = folder / "killed.state"
        reached: list[int] = []
        while len(reached) < arguments.kills:
            process = start(case, arguments, folder, "killed")
            before = state.stat().st_mtime_ns if state.exists() else 0
            while process.poll() is None:  # until it has made some way
                time.sleep(0.01)
                if state.exists() and state.stat().st_mtime_ns != before:
                    break
            time.sleep(draw.uniform(0, whole_s / (6 * arguments.kills)))
            process.kill()
            process.wait()
            if (folder / "killed.json").exists():
                break
            reached.append(torch.load(state, weights_only=True)["place"]["updates"])
        if start(case, arguments, folder, "killed").wait():
            raise SystemExit(f"{case}: the resumed run failed")
        whole, killed = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "killed")
        )
    return {
        "case": case,
        "killed_after_steps": reached,
        "equal": whole == killed,
        "undisturbed": whole,
        "resumed": killed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name", default="")
    arguments = parser.parse_args()
    if arguments.child:
        files = [arguments.folder / f"{arguments.name}.{kind}" for kind in ("state", "json")]
        child(arguments.child, arguments.samples, arguments.epochs, *files)
        return
    if samples(1) is None:
        return
    draw = random.Random(arguments.seed)
    rows = [compare(case, arguments, draw) for case in CASES]
    document = {
        "samples": arguments.samples,
        "epochs": arguments.epochs,
        "torch": torch.__version__,
        "cases": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['case']}: killed after {row['killed_after_steps']}, equal: {row['equal']}")


if __name__ == "__main__":
    main()
