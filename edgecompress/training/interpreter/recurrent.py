"""Recurrent layers: LSTM, GRU and RNN, step by step.

Equations and orders of gates: ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgecompress.training.interpreter.calls import Call, operator
from edgecompress.training.interpreter.indexing import reversed_within

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]

_PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": functional.softsign,
    "softplus": functional.softplus,
}
_SHAPED: dict[str, tuple[Callable[[Tensor, float, float], Tensor], float | None, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a, b: functional.elu(x, a), 1.0, None),
    "hardsigmoid": (lambda x, a, b: torch.clamp(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: functional.leaky_relu(x, a), 0.01, None),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "thresholdedrelu": (lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)), 1.0, None),
}
"""Name -> function, default alpha, default beta (None: it has none)."""


def _activations(call: Call, default: tuple[str, ...], directions: int) -> list[list[Activation]]:
    """Functions by direction."""
    names = list(call.get("activations", [])) or list(default) * directions
    alphas, betas = (list(call.get(f"activation_{k}", [])) for k in ("alpha", "beta"))
    found = [_activation(call, str(name).lower(), alphas, betas) for name in names]
    return [found[k * len(default) : (k + 1) * len(default)] for k in range(directions)]


def _activation(call: Call, name: str, alphas: list[float], betas: list[float]) -> Activation:
    """One function; takes its settings from the front of the lists."""
    if name in _PLAIN:
        return _PLAIN[name]
    if name not in _SHAPED:
        raise call.refused(f"activation {name}")
    function, alpha, beta = _SHAPED[name]
    a = alphas.pop(0) if alphas and alpha is not None else alpha
    b = betas.pop(0) if betas and beta is not None else beta
    return lambda x: function(x, a or 0.0, b or 0.0)


@dataclass(frozen=True, slots=True)
class Direction:
    """Weights of one direction.

    Attributes:
        weight: (gates hidden, in); recurrence: (gates hidden, hidden).
        biases: Of the input and of the recurrence, (gates hidden,) each.
        peepholes: (3 hidden,) or None.
        activations: Functions in the operator's order.
    """

    weight: Tensor
    recurrence: Tensor
    biases: tuple[Tensor, Tensor]
    peepholes: Tensor | None
    activations: list[Activation]

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return self.recurrence.shape[-1]


Cell = Callable[[Call, Direction, Tensor, State], State]
"""(node, weights, products of the input (batch, gates hidden), state) -> next state."""


def _limited(call: Call, x: Tensor) -> Tensor:
    limit = call.get("clip", None)
    return x if limit is None else torch.clamp(x, -limit, limit)


def _lstm(call: Call, own: Direction, entering: Tensor, state: State) -> State:
    h, c = state
    gates = entering + functional.linear(h, own.recurrence, own.biases[0] + own.biases[1])
    i, o, f, g = gates.chunk(4, -1)
    first, second, third = own.activations
    if own.peepholes is not None:
        at_i, at_o, at_f = own.peepholes.chunk(3)
        i, f = i + at_i * c, f + at_f * c
    i = first(_limited(call, i))
    f = 1 - i if call.get("input_forget", 0) else first(_limited(call, f))
    c = f * c + i * second(_limited(call, g))
    if own.peepholes is not None:
        o = o + at_o * c
    return first(_limited(call, o)) * third(c), c


def _gru(call: Call, own: Direction, entering: Tensor, state: State) -> State:
    (h,) = state
    first, second = own.activations
    size = own.hidden
    inner, recurrent = own.biases
    w = entering + inner
    r_gates = functional.linear(h, own.recurrence[: 2 * size], recurrent[: 2 * size])
    z = first(_limited(call, w[:, :size] + r_gates[:, :size]))
    r = first(_limited(call, w[:, size : 2 * size] + r_gates[:, size:]))
    last = own.recurrence[2 * size :], recurrent[2 * size :]
    carried = (
        r * functional.linear(h, *last)
        if call.get("linear_before_reset", 0)
        else functional.linear(r * h, *last)
    )
    new = second(_limited(call, w[:, 2 * size :] + carried))
    return ((1 - z) * new + z * h,)


def _rnn(call: Call, own: Direction, entering: Tensor, state: State) -> State:
    (h,) = state
    total = entering + functional.linear(h, own.recurrence, own.biases[0] + own.biases[1])
    return (own.activations[0](_limited(call, total)),)


@dataclass(frozen=True, slots=True)
class _Kind:
    cell: Cell
    gates: int
    activations: tuple[str, ...]


_KINDS = {
    "LSTM": _Kind(_lstm, 4, ("Sigmoid", "Tanh", "Tanh")),
    "GRU": _Kind(_gru, 3, ("Sigmoid", "Tanh")),
    "RNN": _Kind(_rnn, 1, ("Tanh",)),
}


@operator("LSTM", "GRU", "RNN")
def recurrent(
    call: Call,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    *more: Tensor | None,
) -> tuple[Tensor, ...]:
    """All states (time, directions, batch, hidden), and the last of each direction."""
    initial_h, initial_c, peepholes = (*more, None, None, None)[:3]
    kind = _KINDS[call.operator]
    batch_first = bool(call.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        initial_h, initial_c = (
            None if state is None else state.transpose(0, 1) for state in (initial_h, initial_c)
        )
    states: list[list[Tensor]] = []
    outputs: list[Tensor] = []
    functions = _activations(call, kind.activations, weight.shape[0])
    for k in range(weight.shape[0]):
        size = recurrence.shape[-1]
        both = weight.new_zeros(2 * kind.gates * size) if bias is None else bias[k]
        inner, carried = both.chunk(2)
        peephole = None if peepholes is None else peepholes[k]
        own = Direction(weight[k], recurrence[k], (inner, carried), peephole, functions[k])
        count = 2 if call.operator == "LSTM" else 1
        zeros = x.new_zeros(x.shape[1], size)
        given = (initial_h, initial_c)[:count]
        start = tuple(zeros if state is None else state[k] for state in given)
        backward = call.get("direction", "forward") == "reverse" or k == 1
        steps, last = _run(call, kind.cell, own, _Run(x, lengths, backward), start)
        outputs.append(steps)
        states.append(list(last))
    every = torch.stack(outputs, 1)
    ends = [torch.stack(list(parts)) for parts in zip(*states, strict=True)]
    if batch_first:
        every, ends = every.permute(2, 0, 1, 3), [end.transpose(0, 1) for end in ends]
    return (every, *ends)


@dataclass(frozen=True, slots=True)
class _Run:
    x: Tensor
    lengths: Tensor | None
    backward: bool

    def turned(self, x: Tensor) -> Tensor:
        """Time reversed for the backward direction, within lengths."""
        if not self.backward:
            return x
        return x.flip(0) if self.lengths is None else reversed_within(x, self.lengths)


def _run(call: Call, cell: Cell, own: Direction, run: _Run, state: State) -> tuple[Tensor, State]:
    entering = functional.linear(run.turned(run.x), own.weight)
    outputs: list[Tensor] = []
    for time in range(run.x.shape[0]):
        new = cell(call, own, entering[time], state)
        output = new[0]
        if run.lengths is not None:
            alive = (run.lengths.to(output.device) > time)[:, None]
            new = tuple(torch.where(alive, a, b) for a, b in zip(new, state, strict=True))
            output = torch.where(alive, output, torch.zeros_like(output))
        outputs.append(output)
        state = new
    every = torch.stack(outputs) if outputs else entering.new_zeros(0, *state[0].shape)
    return run.turned(every), state
