"""Generated Verilog against the simulators and the closed forms: cycles and every output.

python -m benchmarks.rtl.agreement

The runs are random but seeded: arrays, widths, products and convolutions of all kinds, with edges.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.rtl.cases import Case, systolic_case, ternary_case
from edgecompress.hardware.rtl.bench import run_bench

RESULTS = Path(__file__).parent / "results" / "agreement.json"
RUNS = 32
FAMILIES: dict[str, Callable[[int], Case]] = {
    "systolic_os": lambda seed: systolic_case("systolic_os", seed),
    "systolic_ws": lambda seed: systolic_case("systolic_ws", seed),
    "ternary_engine": ternary_case,
}


def main() -> int:
    """Run everything; 1 if anything disagrees."""
    version = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=True)
    document: dict[str, Any] = {"tool": version.stdout.splitlines()[0], "families": {}}
    wrong = 0
    for family, make in FAMILIES.items():
        rows, begin = [], time.perf_counter()
        for seed in range(RUNS):
            case = make(seed)
            verdict = run_bench(case.bench)
            agrees = verdict.passed and verdict.cycles == case.simulated == case.predicted
            wrong += not agrees
            rows.append(
                {
                    "seed": seed,
                    "case": case.words,
                    "outputs_equal": verdict.passed,
                    "cycles": verdict.cycles,
                    "simulated_cycles": case.simulated,
                    "predicted_cycles": case.predicted,
                }
            )
        seconds = round(time.perf_counter() - begin, 1)
        document["families"][family] = {"runs": len(rows), "seconds": seconds, "results": rows}
        sys.stderr.write(f"{family}: {len(rows)} runs, {wrong} wrong so far, {seconds} s\n")
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
