"""The operators of a training step, from those of a forward pass.

The chain rule operator by operator, so that a chain of tensor-train factors needs no rule of its
own: the gradient of a factor is the weight gradient of its contraction.

Source: reverse-mode differentiation of y = x w (dx = dy w^T, dw = x^T dy) and of convolutions (dx
is the transposed convolution of dy, dw the correlation of x with dy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgecompress.core.training_step import Optimizer, Phase, TrainingMemory, TrainingStepOptions
from edgecompress.core.work import ConvWork, ElementWork, MatMulWork, Work
from edgecompress.hardware.timeline import ratio_up

PASSES = "gradients wider than the {bits} bits of the device run as passes of {bits} bits"
WINDOWS = "weight gradient of a convolution: a product with the windows gathered into a matrix"
ELEMENTS = "backward of an element-wise operator: as many operations as forward"
SMALL = "biases and normalisation are updated with the weights, which outnumber them"

AS_IT_IS = 1
"""Width of an element of tensors that are not activations: no device narrows them."""

STATES: dict[Optimizer, int] = {"sgd": 0, "momentum": 1, "adam": 2}
"""Entries of state for each weight."""

OPERATIONS: dict[Optimizer, int] = {"sgd": 2, "momentum": 4, "adam": 12}
"""Arithmetic for each weight: w - lr g; m = b m + g and w - lr m; Adam's two moving averages (3 and
4), square root, sum, quotient, product and difference.

Source: counted in the update rules; Adam: Kingma and Ba 2015, algorithm 1, with the bias
corrections folded into the step size.
"""


@dataclass(frozen=True, slots=True)
class PhaseWork:
    """One operator of a step.

    Attributes:
        phase: What it belongs to.
        work: Counts with all passes.
        passes: Times that the multiply-accumulates of the step are in them.
    """

    phase: Phase
    work: Work
    passes: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the step, however many passes they take."""
        operator = self.work.operator
        return 0 if isinstance(operator, ElementWork) else operator.macs // self.passes


@dataclass(frozen=True, slots=True)
class Widths:
    """What a gradient is multiplied with.

    Attributes:
        gradient: Bits of a gradient.
        device: The only width of operands that the array has; None: any.
    """

    gradient: int
    device: int | None

    def passes(self) -> int:
        """Passes of an operand that is a gradient."""
        return 1 if self.device is None else ratio_up(self.gradient, self.device)

    def operand(self, other: int = 0) -> int:
        """Width that a product of a gradient and something of ``other`` bits is priced at."""
        return max(self.gradient, other) if self.device is None else self.device


def training_works(
    works: Sequence[Work], options: TrainingStepOptions, device_bits: int | None = None
) -> Iterator[PhaseWork]:
    """All operators of a step: forward, then backward in reverse order, then the update.

    The gradient of an activation is not computed where no weight lies before it.

    Args:
        works: Of the forward pass.
        options: How the step is done.
        device_bits: The only width of operands that the array has. A wider gradient takes as many
            passes as it has parts of that width; activations are kept at that width, as in
            inference.
    """
    widths = Widths(options.gradient_bits, device_bits)
    for work in works:
        yield PhaseWork("forward", work)
    needed = _needs_gradient(works)
    for place in reversed(range(len(works))):
        yield from _backward(works[place], needed[place], widths)
    for work in works:
        if weight_elements(work):
            yield PhaseWork("update", _update(work, options))


def resident(work: Work) -> Work:
    """The same operator with its activations, gradients and optimiser state on the device.

    Weights, and the second operand of a product of two activations, still come from memory.
    """
    match work.operator:
        case ElementWork() as element:
            return replace(work, operator=replace(element, read_bits=0, written_bits=0))
        case operator:
            return replace(
                work, operator=replace(operator, input_on_chip=True, output_on_chip=True)
            )


def weight_elements(work: Work) -> int:
    """Trainable weights of a convolution or of a product with a constant; 0 for the rest."""
    match work.operator:
        case ElementWork() | MatMulWork(constant=False):
            return 0
        case operator:
            return operator.weight_elements


def training_memory(works: Sequence[Work], options: TrainingStepOptions) -> TrainingMemory:
    """Bytes kept during a step: every activation that a gradient reads, each once."""
    weights = [(weight_elements(work), _weight_bits(work)) for work in works]
    elements = sum(count for count, _ in weights)
    kept: dict[str, int] = {}
    flow = 0
    for work in works:
        if _reads_again(work):
            kept.update((use.name, use.bits) for use in work.reads)
        flow = max(flow, _gradient_bits(work, options))
    return TrainingMemory(
        parameter_bytes=sum(count * (bits + options.master_bits) for count, bits in weights) / 8,
        gradient_bytes=elements * options.gradient_bits / 8,
        optimizer_bytes=elements * STATES[options.optimizer] * options.state_bits / 8,
        activation_bytes=sum(kept.values()) / 8,
        gradient_flow_bytes=flow / 8,
    )


def _needs_gradient(works: Sequence[Work]) -> list[bool]:
    """Whether what an operator reads depends on a weight; yes where its inputs are not known."""
    traced: set[str] = set()
    needed = []
    for work in works:
        behind = not work.reads or any(use.name in traced for use in work.reads)
        needed.append(behind)
        if behind or weight_elements(work):
            traced.update(use.name for use in work.writes)
    return needed


def _backward(work: Work, behind: bool, bits: Widths) -> Iterator[PhaseWork]:
    """Gradients of an operator's weight and of what it reads."""
    passes = bits.passes()
    match work.operator:
        case ConvWork() as conv:
            gathered = _renamed(work, _conv_weight(conv, bits), WINDOWS)
            yield PhaseWork("weight gradient", gathered, passes)
            if behind:
                yield PhaseWork("backward", _renamed(work, _conv_data(conv, bits)), passes)
        case MatMulWork() as product:
            if behind or product.constant:
                phase: Phase = "weight gradient" if product.constant else "backward"
                yield PhaseWork(phase, _renamed(work, _product_weight(product, bits)), passes)
            if behind:
                yield PhaseWork("backward", _renamed(work, _product_data(product, bits)), passes)
        case ElementWork(free=True):
            return
        case ElementWork() as element:
            if behind:
                yield PhaseWork("backward", _renamed(work, _elements(element, bits), ELEMENTS))


def _renamed(work: Work, operator: ConvWork | MatMulWork | ElementWork, *assumed: str) -> Work:
    """The gradient of an operator; its own weight statistics do not hold for a gradient."""
    joined = "; ".join(text for text in (work.assumed, *assumed) if text)
    return replace(
        work, operator=operator, assumed=joined, weights=None, reads=(), writes=(), source_layer=""
    )


def _conv_data(conv: ConvWork, bits: Widths) -> ConvWork:
    """From the gradient of the output to that of the input."""
    return replace(
        conv,
        batch=conv.batch * bits.passes(),
        in_channels=conv.out_channels,
        out_channels=conv.in_channels,
        in_height=conv.out_height,
        in_width=conv.out_width,
        out_height=conv.in_height,
        out_width=conv.in_width,
        transposed=not conv.transposed,
        activation_bits=bits.operand(),
    )


def _conv_weight(conv: ConvWork, bits: Widths) -> MatMulWork:
    """Windows of the input, transposed, times the gradient of the output."""
    taps = conv.kernel[0] * conv.kernel[1]
    small = conv.in_height * conv.in_width if conv.transposed else conv.out_height * conv.out_width
    wide, narrow = conv.in_channels // conv.group, conv.out_channels // conv.group
    if conv.transposed:
        wide, narrow = narrow, wide
    return MatMulWork(
        count=conv.group * bits.passes(),
        rows=wide * taps,
        inner=conv.batch * small,
        columns=narrow,
        constant=False,
        weight_bits=bits.operand(),
        activation_bits=bits.operand(conv.activation_bits),
    )


def _product_data(product: MatMulWork, bits: Widths) -> MatMulWork:
    """dx = dy w^T; the passes of a wide gradient share the weight."""
    passes = bits.passes()
    return replace(
        product,
        count=product.count * passes,
        repeats=product.repeats * passes if product.constant else product.repeats,
        inner=product.columns,
        columns=product.inner,
        activation_bits=bits.operand(),
    )


def _product_weight(product: MatMulWork, bits: Widths) -> MatMulWork:
    """dw = x^T dy, summed over the products that share a weight."""
    return replace(
        product,
        count=product.count // product.repeats * bits.passes(),
        rows=product.inner,
        inner=product.rows * product.repeats,
        repeats=1,
        constant=False,
        weight_bits=bits.operand(),
        weight_storage_bits=0,
        activation_bits=bits.operand(product.activation_bits),
    )


def _elements(element: ElementWork, bits: Widths) -> ElementWork:
    """The gradient that enters, what the forward pass kept, and the gradient that leaves."""
    scale = bits.gradient / element.activation_bits
    kept = bits.operand() / element.activation_bits if bits.device else 1.0
    return replace(
        element,
        read_bits=round(element.written_bits * scale + element.read_bits * min(1.0, kept)),
        written_bits=round(element.read_bits * scale),
        fused=False,
        activation_bits=AS_IT_IS,
    )


def _update(work: Work, options: TrainingStepOptions) -> Work:
    """New weights from gradients and state."""
    elements = weight_elements(work)
    states = STATES[options.optimizer] * options.state_bits
    copy = options.master_bits or _weight_bits(work)
    refreshed = _weight_bits(work) if options.master_bits else 0
    element = ElementWork(
        operations=elements * OPERATIONS[options.optimizer],
        read_bits=elements * (copy + states + options.gradient_bits),
        written_bits=elements * (copy + states + refreshed),
        activation_bits=AS_IT_IS,
    )
    return _renamed(work, element, SMALL)


def _weight_bits(work: Work) -> int:
    return 0 if isinstance(work.operator, ElementWork) else work.operator.weight_bits


def _reads_again(work: Work) -> bool:
    """Whether the backward pass reads what the operator read."""
    return not (isinstance(work.operator, ElementWork) and work.operator.free)


def _gradient_bits(work: Work, options: TrainingStepOptions) -> int:
    """Gradients of all that an operator reads and writes."""
    operator = work.operator
    if isinstance(operator, ElementWork) and operator.free:
        return 0
    width = operator.activation_bits
    return (work.input_bits + work.output_bits) * options.gradient_bits // width
