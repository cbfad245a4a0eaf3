"""Memory of a training step beside that of the dense network, and what each part saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecompress.core.training import TrainOptions
from edgecompress.core.training_report import (
    MemoryFactor,
    MemoryRow,
    MemoryTable,
    StoredNumbers,
)
from edgecompress.pipeline.request import Progress
from edgecompress.pipeline.train_lesson import Lesson
from edgecompress.pipeline.train_subject import Subject

if TYPE_CHECKING:
    from edgecompress.training.low_precision.storage import StoredBits
    from edgecompress.training.memory import StepMemory
    from edgecompress.training.step_accounts import StepAccount

FLOAT_BITS = 32
ACCOUNTED_BATCHES = (1, 16, 64)
COPIES = "perturbed copies"
OUTPUTS = "outputs"


def stored_bits(subject: Subject, lesson: Lesson, options: TrainOptions) -> StoredBits | None:
    """What is stored at which width; None where everything is float32."""
    if options.precision is None:
        return None
    from edgecompress.training.step_accounts import stored_account

    return stored_account(subject.network, lesson.data(), options)


def stored_rows(stored: StoredBits) -> Iterator[StoredNumbers]:
    """The same, part by part."""
    for part in stored.parts:
        yield StoredNumbers(
            name=part.name,
            numbers=part.count,
            bits=part.bits,
            size_bytes=part.total_bits / 8,
            note="of the network" if part.parameter else "of its training",
        )


def step_batch(options: TrainOptions, learned: int) -> int:
    """Samples of the largest step: the batch that was asked for, or all that there are."""
    return min(options.batch, learned)


def memory_tables(
    subject: Subject,
    lesson: Lesson,
    options: TrainOptions,
    stored: StoredBits | None,
    *,
    learned: int,
    progress: Progress,
) -> tuple[MemoryTable, ...]:
    """Memory of a step beside the dense network's, at several batch sizes.

    Args:
        subject: Both networks.
        lesson: The samples.
        options: As they were carried out.
        stored: What ours stores in few bits.
        learned: Samples that are learned from: no step has more.
        progress: Told about each batch size.
    """
    from edgecompress.training.step_accounts import step_accounts

    accounts = step_accounts(
        subject.dense,
        subject.network,
        lesson.data(),
        replace(options, batch=min(options.batch, learned)),
        sorted({min(batch, learned) for batch in (*ACCOUNTED_BATCHES, options.batch)}),
        lambda done, total: progress("accounting for memory", done, total),
    )
    return tuple(_table(account, options, stored) for account in accounts)


def _table(account: StepAccount, options: TrainOptions, stored: StoredBits | None) -> MemoryTable:
    predicted = account.dense is not None and account.ours is not None
    measured = [_sizes(one) for one in (account.dense_measured, account.ours_measured)]
    dense = _sizes(account.dense) or measured[0]
    ours = _sizes(account.ours) or measured[1]
    narrow = _narrow(stored, options, ours) if stored else {}
    before, after = measured if all(measured) else (dense, ours)
    rows = [
        MemoryRow(
            name=name,
            dense_bytes=dense.get(name, 0.0),
            ours_bytes=ours.get(name, 0.0),
            dense_measured_bytes=measured[0].get(name),
            ours_measured_bytes=measured[1].get(name),
            stored_bytes=narrow.get(name),
            factor=_ratio(before.get(name, 0.0), narrow.get(name, after.get(name, 0.0))),
        )
        for name in _row_names(
            narrow,
            buffers=bool(dense.get("buffers") or ours.get("buffers")),
            forward_only=options.forward_only,
        )
    ]
    return MemoryTable(batch=account.batch, predicted=predicted, rows=tuple(rows))


def _row_names(narrow: dict[str, float], *, buffers: bool, forward_only: bool) -> tuple[str, ...]:
    some = [*(["buffers"] if buffers else []), *(["masters"] if narrow.get("masters") else [])]
    kinds = ("parameters", *some, COPIES if forward_only else "gradients", "optimizer state")
    outputs = (OUTPUTS,) if forward_only else ()
    return (*kinds, "model", *outputs, "activations", "total", "peak")


def _sizes(memory: StepMemory | None) -> dict[str, float]:
    if memory is None:
        return {}
    return {
        "parameters": float(memory.parameter_bytes),
        "buffers": float(memory.buffer_bytes),
        "gradients": float(memory.gradient_bytes),
        COPIES: float(memory.copy_bytes),
        "optimizer state": float(memory.state_bytes),
        "model": float(memory.model_bytes),
        OUTPUTS: float(memory.output_bytes),
        "activations": float(memory.activation_bytes),
        "total": float(memory.model_bytes + memory.output_bytes + memory.activation_bytes),
        "peak": float(memory.peak_bytes),
    }


def _narrow(stored: StoredBits, options: TrainOptions, ours: dict[str, float]) -> dict[str, float]:
    """Bytes at the widths that were asked for; activations are the float ones, narrower; buffers,
    copies that are perturbed and outputs stay float."""
    kept = {"parameters": 0.0, "masters": 0.0, "gradients": 0.0, "optimizer state": 0.0}
    kept["buffers"], kept[COPIES] = ours["buffers"], ours[COPIES]
    for part in stored.parts:
        kind = "gradients"
        if part.parameter or part.name.startswith("wider codes"):
            kind = "parameters"
        elif part.name in ("masters", "optimiser state"):
            kind = "masters" if part.name == "masters" else "optimizer state"
        kept[kind] += part.total_bits / 8
    bits = options.precision.activation_bits if options.precision else FLOAT_BITS
    model = sum(kept.values())
    activations = ours["activations"] * bits / FLOAT_BITS
    outputs = ours[OUTPUTS]
    total = model + outputs + activations
    return {
        **kept,
        "model": model,
        OUTPUTS: outputs,
        "activations": activations,
        "total": total,
    }


def _ratio(before: float, after: float) -> float | None:
    return before / after if before > 0 and after > 0 else None


def memory_factors(
    dense: int, start: int, end: int, bits: float, memory: MemoryTable | None
) -> Iterator[MemoryFactor]:
    """Which part of the method makes what how many times smaller.

    Args:
        dense, start, end: Parameters of the dense network, and of ours before and after.
        bits: That ours is stored in.
        memory: Of a training step; None if nothing is known of it.
    """
    yield MemoryFactor(part="tensor factors", factor=dense / start, of="parameters")
    if start != end:
        yield MemoryFactor(part="ranks that fell", factor=start / end, of="parameters")
    if bits != end * FLOAT_BITS:
        yield MemoryFactor(
            part="numbers of few bits", factor=end * FLOAT_BITS / bits, of="bits of a parameter"
        )
    whole = dense * FLOAT_BITS
    yield MemoryFactor(part="together", factor=whole / bits, of="bits of the network")
    if memory is None:
        return
    rows = {row.name: row.factor for row in memory.rows}
    kinds = ", ".join(name for name in ("parameters", "buffers", "masters") if name in rows)
    changed = COPIES if COPIES in rows else "gradients"
    named = {
        "model": f"{kinds}, {changed} and optimizer state",
        "activations": f"activations, batch {memory.batch}",
        "total": f"all of these, batch {memory.batch}",
    }
    for name, of in named.items():
        found = rows.get(name)
        if found is not None:
            yield MemoryFactor(part="a training step", factor=found, of=of)
