"""Train a decomposed graph to give what the float graph gives, on samples without labels."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.core.healing import Healing
from edgecompress.core.options import HealOptions
from edgecompress.core.samples import Feed
from edgecompress.graph.bonds import Chain
from edgecompress.graph.model import Model
from edgecompress.graph.slices import Slice

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ConfigurationInvalid(
        "healing needs torch, which is not installed",
        hint="pip install 'edgecompress[torch]'",
    ) from error

from edgecompress.training.heal_loss import Scores
from edgecompress.training.interpreter.interpreter import Interpreter

__all__ = ["Fall", "HealTask", "Healed", "Scores", "check_operators", "heal", "made_with"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """Down to where ranks fall.

    Attributes:
        chains: Whose ranks may fall.
        fixed: What everything but the chains costs, in units of the budget.
        limit: What the graph may cost.
    """

    chains: Sequence[Chain]
    fixed: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealTask:
    """What is healed.

    Attributes:
        teacher: The float graph.
        student: The same one with layers replaced; changed in place.
        feeds: Samples of its inputs.
        open_batch: Whether samples of different feeds may be put together.
        outputs: Names of the float outputs.
        scores: How the first one holds scores; None if it does not.
        slices: What is trained on its own first.
        fall: None: ranks stay.
        layer_outputs: Decomposed layer -> the value that leaves it, in both graphs.
    """

    teacher: Model
    student: Model
    feeds: Sequence[Feed]
    open_batch: bool
    outputs: Sequence[str]
    scores: Scores | None
    slices: Sequence[Slice] = ()
    fall: Fall | None = None
    layer_outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """What came out.

    Attributes:
        healing: For the report.
        changed: Whether the student has other weights than before.
        ranks: Of the chains, by layer; empty where they stay.
        errors: Relative L2 error of each decomposed layer's output on samples held back.
    """

    healing: Healing
    changed: bool
    ranks: Mapping[str, tuple[int, ...]]
    errors: Mapping[str, float]


def check_operators(model: Model) -> None:
    """Refuse a graph with operators that cannot be trained through.

    Raises:
        Unsupported: Names them.
    """
    Interpreter(model, keep_half=False)


def made_with() -> str:
    """What the bits of a healed graph depend on, besides its inputs."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"


def heal(
    task: HealTask, options: HealOptions, progress: Progress = lambda phase, done, total: None
) -> Healed:
    """Train the student, in place, in slices and then from end to end.

    All its float weights are trained. The state that is kept is the one closest to the teacher on
    samples held back, looked at after every pass; the state before healing is one of those.
    Where ranks fall, only states within the budget are, and the first of them is the student cut
    at once.

    Returns:
        What was done; the student's bytes are those of before if nothing was closer.

    Raises:
        Unsupported: An operator cannot be trained through, or pictures are asked for and the
            model takes none.
        DataInvalid: There is only one sample.
    """
    from edgecompress.training.heal_run import HealRun

    return HealRun(task, options, progress).healed()
