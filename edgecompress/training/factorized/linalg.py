"""Decompositions in torch, float64, signs fixed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from edgecompress.core.arrays import Shape

TINY = 1e-14
"""Singular values below this share of the largest are rounding (float64 epsilon is 2.2e-16)."""


def svd(matrix: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The thin or truncated singular value decomposition.

    Returns:
        u (m, r), s (r,) in falling order, vt (r, n); the largest entry of a column of u is
        positive, so the result does not depend on the LAPACK build.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    top = u.gather(0, u.abs().argmax(0, keepdim=True))
    sign = torch.where(top < 0, -1.0, 1.0).to(u.dtype)
    u, vt = u * sign, vt * sign.T
    return u[:, :rank], s[:rank], vt[:rank]


def unfold(tensor: Tensor, mode: int) -> Tensor:
    """(n_mode, everything else)."""
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)


def mode_product(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """Contract one mode with the columns of (m, n_mode)."""
    product: Tensor = torch.tensordot(matrix, tensor, dims=([1], [mode]))
    return product.movedim(0, mode)


def tt_svd(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r, n, r') of a tensor train, one sweep of truncated SVDs.

    Args:
        tensor: float64.
        ranks: Of the inner bonds, left to right.

    Source: Oseledets 2011, algorithm 1.
    """
    cores, rest, left = [], tensor.reshape(1, -1), 1
    for size, rank in zip(tensor.shape, ranks, strict=False):
        u, s, vt = svd(rest.reshape(left * size, -1), rank)
        found = s.numel()
        core = u.new_zeros(left * size, rank)
        core[:, :found] = u
        cores.append(core.reshape(left, size, rank))
        rest = vt.new_zeros(rank, vt.shape[1])
        rest[:found] = s[:, None] * vt
        left = rank
    return [*cores, rest.reshape(left, tensor.shape[-1], 1)]


def balance_train(cores: Sequence[Tensor]) -> list[Tensor]:
    """The same tensor train with orthogonal slices at every bond and sqrt(s) on both of its sides.

    A QR sweep to the right, then an SVD sweep to the left that leaves right-orthogonal cores and
    each bond's singular values s; cores are then scaled by sqrt(s) of the left bond and divided by
    sqrt(s) of the right one. Directions of singular value zero become zero on both sides.

    Source: Vidal 2003 (canonical form); Oseledets 2011 (rounding).
    """
    work = list(cores)
    for k in range(len(work) - 1):
        left, size, right = work[k].shape
        q, r = torch.linalg.qr(work[k].reshape(left * size, right))
        work[k] = q.reshape(left, size, -1)
        work[k + 1] = torch.tensordot(r, work[k + 1], dims=1)
    weights = [work[0].new_ones(1)]
    for k in range(len(work) - 1, 0, -1):
        left, size, right = work[k].shape
        u, s, vt = svd(work[k].reshape(left, size * right))
        work[k] = vt.reshape(-1, size, right)
        work[k - 1] = torch.tensordot(work[k - 1], u * s, dims=1)
        weights.insert(0, s)
    roots = [work[0].new_ones(1), *[values.sqrt() for values in weights]]
    for k, core in enumerate(work):
        work[k] = core * roots[k][:, None, None] * _inverse(roots[k + 1])
    return [_widen(new, tuple(old.shape)) for new, old in zip(work, cores, strict=True)]


def slice_sums(values: Tensor, axis: int) -> Tensor:
    """Sum of each slice along an axis, differentiable; (size of the axis,)."""
    others = [a for a in range(values.ndim) if a != axis]
    return values.sum(others) if others else values


def train_spectrum(cores: Sequence[Tensor], bond: int) -> Tensor:
    """Norm of each index's left part of a tensor train times that of its right part, (rank,): in
    the gauge of `balance_train` the singular values of the bond."""
    left = cores[0].new_ones(1, 1)
    for core in cores[: bond + 1]:
        left = torch.tensordot(core, torch.tensordot(left, core, dims=1), ([0, 1], [0, 1]))
    right = cores[0].new_ones(1, 1)
    for core in reversed(cores[bond + 1 :]):
        right = torch.tensordot(torch.tensordot(core, right, dims=1), core, ([1, 2], [1, 2]))
    squares: Tensor = left.diagonal() * right.diagonal()
    return squares.clamp_min(0).sqrt()


def hooi(tensor: Tensor, ranks: Sequence[int], sweeps: int = 20) -> tuple[list[Tensor], Tensor]:
    """Tucker factors with orthonormal columns, and the core; as many leading modes as ranks.

    Higher-order orthogonal iteration, started from the truncated higher-order SVD.

    Source: De Lathauwer, De Moor and Vandewalle 2000.
    """
    factors = [svd(unfold(tensor, k))[0][:, :rank] for k, rank in enumerate(ranks)]
    whole = all(u.shape[1] == n for u, n in zip(factors, tensor.shape, strict=False))
    energy = -1.0
    for _ in range(0 if whole else sweeps):
        for k, rank in enumerate(ranks):
            projected = tensor
            for j, factor in enumerate(factors):
                projected = projected if j == k else mode_product(projected, factor.T, j)
            factors[k] = svd(unfold(projected, k))[0][:, :rank]
        new = float(project(tensor, factors).square().sum())
        if new <= energy * (1 + 1e-12):
            break
        energy = new
    return factors, project(tensor, factors)


def project(tensor: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """The tensor in the coordinates of factors with orthonormal columns."""
    for k, factor in enumerate(factors):
        tensor = mode_product(tensor, factor.T, k)
    return tensor


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Column-wise Kronecker product: (prod n, rank), the last factor's rows fastest."""
    state = factors[0]
    for factor in factors[1:]:
        state = (state[:, None] * factor[None]).reshape(-1, state.shape[1])
    return state


def cp_als(tensor: Tensor, rank: int, sweeps: int = 300) -> list[Tensor]:
    """CP factors by alternating least squares, norms held in check.

    Each step minimises the error plus a small multiple of the factors' squared norms, which keeps
    components from growing against each other; the multiple falls to rounding as sweeps go on, and
    columns are rescaled to equal norms after each sweep. Of three starts the best goes on.

    Args:
        tensor: float64, not zero everywhere.
        rank: At the least useful upper bound the exact factors are returned at once.
        sweeps: At most, with those of the starts.

    Source: Carroll and Chang 1970 (alternating least squares); Li, Kindermann and Navasca 2013
    (regularised).
    """
    largest = max(range(tensor.dim()), key=lambda k: tensor.shape[k])
    if tensor.dim() == 2:
        u, s, vt = svd(tensor, rank)
        factors = [u * s.sqrt(), vt.T * s.sqrt()]
        return [torch.nn.functional.pad(f, (0, rank - f.shape[1])) for f in factors]
    if rank >= tensor.numel() // tensor.shape[largest]:
        return _exact_cp(tensor, largest, rank)
    trial = sweeps // 10
    starts = [_als(tensor, _cp_start(tensor, rank, seed), range(trial)) for seed in range(3)]
    factors = min(starts, key=lambda start: start[1])[0]
    return _als(tensor, factors, range(trial, sweeps))[0]


def _als(tensor: Tensor, factors: list[Tensor], sweeps: range) -> tuple[list[Tensor], float]:
    """Sweeps of alternating least squares, and the squared error."""
    energy = float(tensor.square().sum())
    unfolded = [unfold(tensor, k) for k in range(tensor.dim())]
    error, rank = float("inf"), factors[0].shape[1]
    eye = torch.eye(rank, dtype=tensor.dtype, device=tensor.device)
    for sweep in sweeps:
        share = max(1e-12, 1e-2 * 0.8**sweep)
        gram = projected = eye
        for k, flat in enumerate(unfolded):
            others = [f for j, f in enumerate(factors) if j != k]
            gram = torch.stack([f.T @ f for f in others]).prod(0)
            ridge = share * float(gram.diagonal().mean()) + torch.finfo(gram.dtype).tiny
            projected = flat @ khatri_rao(others)
            factors[k] = torch.linalg.lstsq(gram + ridge * eye, projected.T).solution.T
        inner = float((projected * factors[-1]).sum())
        square = float((gram * (factors[-1].T @ factors[-1])).sum())
        factors, before, error = equal_norms(factors), error, energy - 2 * inner + square
        if share <= 1e-9 and error >= before - 1e-10 * energy:
            break
    return factors, error


def equal_norms(factors: Sequence[Tensor]) -> list[Tensor]:
    """CP factors whose columns have the same norm in every factor; the tensor is the same."""
    norms = torch.stack([f.norm(dim=0) for f in factors])
    target = norms.log().mean(0).exp()
    scale = torch.where(norms > 0, target / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0.0)
    return [f * s for f, s in zip(factors, scale, strict=True)]


def _exact_cp(tensor: Tensor, largest: int, rank: int) -> list[Tensor]:
    """One component for every fibre along the largest mode."""
    others = [n for k, n in enumerate(tensor.shape) if k != largest]
    index = torch.arange(prod(others), device=tensor.device)
    digits, stride = [], prod(others)
    for size in others:
        stride //= size
        digits.append(torch.nn.functional.one_hot(index // stride % size, size).T)
    factors = [d.to(tensor.dtype) for d in digits]
    factors.insert(largest, unfold(tensor, largest))
    return [torch.nn.functional.pad(f, (0, rank - f.shape[1])) for f in factors]


def _cp_start(tensor: Tensor, rank: int, seed: int) -> list[Tensor]:
    """Noisy leading singular vectors of every unfolding, random columns beyond them."""
    generator = torch.Generator().manual_seed(seed)
    scale = (float(tensor.square().sum()) ** 0.5 / rank**0.5) ** (1 / tensor.dim())
    factors = []
    for k, size in enumerate(tensor.shape):
        u = svd(unfold(tensor, k))[0][:, :rank]
        extra = torch.randn(size, rank - u.shape[1], generator=generator, dtype=tensor.dtype)
        extra = extra.to(tensor.device) / size**0.5
        mixed = (0.1 + seed) * torch.randn(
            size, u.shape[1], generator=generator, dtype=tensor.dtype
        )
        factors.append(scale * torch.cat([u + mixed.to(tensor.device) / size**0.5, extra], 1))
    return factors


def _inverse(root: Tensor) -> Tensor:
    """1/root; 0 where the root of a singular value is rounding."""
    usable = root > TINY**0.5 * root.max().clamp_min(torch.finfo(root.dtype).tiny)
    return torch.where(usable, 1 / torch.where(usable, root, 1.0), 0.0)


def _widen(core: Tensor, shape: Shape) -> Tensor:
    """Zero slices up to the old ranks."""
    left, _, right = shape
    return torch.nn.functional.pad(core, (0, right - core.shape[2], 0, 0, 0, left - core.shape[0]))
