"""Verilog of small constant matrices times a vector: additions, subtractions and shifts only.

Interpolation points come in pairs p and -p, so the transforms have rows (or columns) that differ
in the signs of every other entry. Their common parts are computed once.

Source: Winograd 1980; Lavin and Gray (arXiv 1509.09308), section 4, for the shared sums.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from edgecompress.core.winograd import IntArray
from edgecompress.hardware.rtl.verilog import LINE


@dataclass(frozen=True, slots=True)
class Wire:
    """One signal.

    Attributes:
        name, text: What it is called, and its expression.
        gain: Sum of the magnitudes of its coefficients of the inputs, before a last shift.
    """

    name: str
    text: str
    gain: int

    @property
    def additions(self) -> int:
        """Additions and subtractions of two terms, and negations."""
        text = self.text.removeprefix("(")
        return text.count(" + ") + text.count(" - ") + text.startswith("-")


@dataclass(frozen=True, slots=True)
class Network:
    """Wires that compute a matrix times a vector.

    Attributes:
        wires: In the order of computation; the last ones are y0, y1, ...
        inputs: Length of the vector x.
        outputs: Length of the result y.
    """

    wires: tuple[Wire, ...]
    inputs: int
    outputs: int

    def adder_bits(self, width: int, most: int) -> int:
        """Bits of all additions on inputs of ``width`` bits, where words have ``most`` at most."""
        return sum(w.additions * min(most, width + _growth(w.gain)) for w in self.wires)

    def widths(self, width: int, most: int) -> tuple[int, ...]:
        """Bits of the results."""
        results = self.wires[-self.outputs :]
        return tuple(min(most, width + _growth(wire.gain)) for wire in results)


def network(matrix: IntArray) -> Network:
    """The wires for ``matrix @ x``."""
    wires: list[Wire] = []
    columns, names, gains = _column_pairs(matrix, wires)
    done: dict[int, Wire] = {}
    for row in range(len(columns)):
        if row in done:
            continue
        mate = _mate(columns, row, done)
        if mate is None:
            done[row] = Wire(f"y{row}", _sum(columns[row], names), _gain(columns[row], gains))
            continue
        even, odd = (columns[row] + columns[mate]) // 2, (columns[row] - columns[mate]) // 2
        shift = _common_shift(even, odd)
        signs = tuple(-1 if _is_negative(part) else 1 for part in (even, odd))
        even, odd = signs[0] * even >> shift, signs[1] * odd >> shift
        pair = Wire(f"even{row}", _sum(even, names), _gain(even, gains))
        other = Wire(f"odd{row}", _sum(odd, names), _gain(odd, gains))
        wires += [pair, other]
        for place, sign in ((row, signs[1]), (mate, -signs[1])):
            text = _signed_pair(signs[0], sign, (pair.name, other.name))
            done[place] = Wire(f"y{place}", _shifted(text, shift), pair.gain + other.gain)
    wires += [done[row] for row in range(len(columns))]
    return Network(tuple(wires), matrix.shape[1], matrix.shape[0])


def _gain(row: IntArray, gains: list[int]) -> int:
    """Sum of the magnitudes of the coefficients of the inputs."""
    return int(abs(row) @ np.array(gains))


def _growth(gain: int) -> int:
    """Bits that a sum of that gain needs more than its inputs."""
    return (gain - 1).bit_length()


def function_text(matrix: IntArray) -> str:
    """A Verilog function ``transform`` for ``matrix @ x`` on signed words of W bits, modulo 2**W.

    Args:
        matrix: (outputs, inputs) integers.
    """
    net = network(matrix)
    rows = [f"//   {' '.join(f'{value:3d}' for value in row)}" for row in matrix]
    names = [f"x{place}" for place in range(net.inputs)] + [wire.name for wire in net.wires]
    result = ", ".join(f"y{row}" for row in reversed(range(net.outputs)))
    lines = [
        "// T x with T =",
        *rows,
        f"function [{net.outputs}*W-1:0] transform(input [{net.inputs}*W-1:0] x);",
        *textwrap.wrap(
            f"reg signed [W-1:0] {', '.join(names)};",
            LINE - 8,
            initial_indent="    ",
            subsequent_indent="        ",
        ),
        "    begin",
        *(f"        x{place} = x[{place}*W +: W];" for place in range(net.inputs)),
        *(f"        {wire.name} = {wire.text};" for wire in net.wires),
        f"        transform = {{{result}}};",
        "    end",
        "endfunction",
    ]
    return "\n".join(f"    {line}" for line in lines)


def _column_pairs(matrix: IntArray, wires: list[Wire]) -> tuple[IntArray, list[str], list[int]]:
    """Columns that are equal but for signs, as one for the sum and one for the difference.

    Returns:
        The matrix with such columns, the names of what it is for, and their gains.
    """
    columns: list[IntArray] = []
    names: list[str] = []
    used: set[int] = set()
    for place in range(matrix.shape[1]):
        if place in used:
            continue
        column = matrix[:, place]
        mate = _column_mate(matrix, place)
        if mate is None:
            columns.append(column)
            names.append(f"x{place}")
            continue
        used.add(mate)
        same = matrix[:, mate] == column
        columns += [np.where(same, column, 0), np.where(same, 0, column)]
        names += [f"sum{place}", f"difference{place}"]
        wires.append(Wire(names[-2], f"x{place} + x{mate}", 2))
        wires.append(Wire(names[-1], f"x{place} - x{mate}", 2))
    gains = [1 if name.startswith("x") else 2 for name in names]
    return np.stack(columns, axis=1), names, gains


def _column_mate(matrix: IntArray, place: int) -> int | None:
    """A later column that differs in some signs only, where there are more columns than rows."""
    if matrix.shape[0] >= matrix.shape[1]:
        return None
    column = matrix[:, place]
    for other in range(place + 1, matrix.shape[1]):
        equal = np.array_equal(np.abs(matrix[:, other]), np.abs(column))
        if equal and np.any(matrix[:, other] != column):
            return other
    return None


def _mate(matrix: IntArray, row: int, done: dict[int, Wire]) -> int | None:
    """A later row that differs in the signs of some entries only."""
    for other in range(row + 1, len(matrix)):
        if other in done or not np.array_equal(np.abs(matrix[other]), np.abs(matrix[row])):
            continue
        equal = (matrix[other] == matrix[row]) & (matrix[row] != 0)
        if equal.any() and (matrix[other] != matrix[row]).any():
            return other
    return None


def _is_negative(row: IntArray) -> bool:
    """Whether no entry is positive."""
    return not (row > 0).any()


def _common_shift(*rows: IntArray) -> int:
    """The largest power of two that divides all entries."""
    return min(int(value) & -int(value) for row in rows for value in row if value).bit_length() - 1


def _signed_pair(first: int, second: int, names: tuple[str, str]) -> str:
    """The sum of two words with their signs, a positive one first."""
    if first < 0 and second > 0:
        return f"{names[1]} - {names[0]}"
    return f"{'' if first > 0 else '-'}{names[0]} {'+' if second > 0 else '-'} {names[1]}"


def _shifted(text: str, shift: int) -> str:
    """An expression times a power of two."""
    return f"({text}) <<< {shift}" if shift else text


def _sum(row: IntArray, names: list[str]) -> str:
    """A sum of terms that are shifted, positive ones first."""
    positive: list[str] = []
    negative: list[str] = []
    for value, name in zip(row, names, strict=True):
        for sign, shift in _digits(int(value)):
            (positive if sign > 0 else negative).append(_term(name, shift))
    if not positive:
        head, *tail = negative
        return f"-{head}" + "".join(f" - {term}" for term in tail)
    return " + ".join(positive) + "".join(f" - {term}" for term in negative)


def _term(name: str, shift: int) -> str:
    """A word times a power of two."""
    return f"({name} <<< {shift})" if shift else name


def _digits(value: int) -> list[tuple[int, int]]:
    """(sign, shift) of the canonical signed digits, no two of them neighbours."""
    digits = []
    shift = 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            digits.append((digit, shift))
            value -= digit
        value >>= 1
        shift += 1
    return digits
