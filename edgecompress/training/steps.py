"""One step of a run, and how the network is judged between epochs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from edgecompress.core.errors import DataInvalid
from edgecompress.training.batches import Batches, derived_seed
from edgecompress.training.output_losses import output_loss
from edgecompress.training.schedule import rate_at
from edgecompress.training.session import Session
from edgecompress.training.sharding import whole_parameters
from edgecompress.training.subspace_newton import SubspaceNewton

JUDGED_AT_ONCE = 1024
"""Samples of a batch that is only judged. Source: a choice; no result depends on it but memory."""


def one_step(session: Session, rows: Tensor, weight: float) -> Tensor:
    """One update; the mean loss of the whole batch, without the penalty, detached."""
    options, place = session.options, session.place
    seed_step(options.seed, place.updates + 1, session.team.device)
    session.set_width(place.updates)
    rate = rate_at(options.rate, place.updates, session.steps * options.epochs)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    if options.forward_only:
        loss = _blind_step(session, rows, weight)
    else:
        session.optimizer.zero_grad(set_to_none=True)
        loss = batch_gradients(session, rows, weight)
        session.optimizer.step()
    if session.adaptation is not None:
        session.adaptation.after_step()
    return loss


def batch_gradients(session: Session, rows: Tensor, weight: float) -> Tensor:
    """Gradients of a batch's mean loss and of the penalty, averaged over the processes.

    Args:
        session: Whose parameters' gradients are set.
        rows: The whole batch, in all processes.
        weight: Terms of its mean.

    Returns:
        The mean loss over the whole batch, detached, the same in all processes.
    """
    mine, share = _my_part(session, rows, weight)
    inputs, target = session.train.take(mine)
    loss = _loss(session, session.parallel(*inputs), target)
    whole = loss if session.team.size == 1 else loss * (share * session.team.size)
    penalty = _penalty(session)
    if penalty is not None:
        whole = whole + penalty
    whole.backward()  # type: ignore[no-untyped-call]
    if session.outline is not None:
        session.team.average_gradients(whole_parameters(session.network))
    return _whole_loss(session, loss, share)


def _blind_step(session: Session, rows: Tensor, weight: float) -> Tensor:
    """One update from forward passes alone; every process perturbs alike and sees common sums."""
    mine, share = _my_part(session, rows, weight)
    inputs, target = session.train.take(mine)
    penalty = _penalty(session)  # variances follow the cores once a step, not each perturbation
    seen: list[Tensor] = []

    def forward() -> Tensor:
        seed_step(session.options.seed, session.place.updates + 1, session.team.device)
        output: Tensor = session.network(*inputs)
        return output

    def outputs() -> Tensor:
        found = forward()
        if not seen:
            seen.append(_whole_loss(session, _loss(session, found, target), share))
        return found

    def loss() -> Tensor:
        seen.append(_whole_loss(session, _loss(session, forward(), target), share))
        price = _penalty(session, refresh=False)
        return seen[-1] if price is None else seen[-1] + price

    with torch.no_grad():
        if isinstance(session.optimizer, SubspaceNewton):
            session.optimizer.step(
                outputs,
                output_loss(session.task, target),
                price=None if penalty is None else partial(_penalty, session, refresh=False),
                total=partial(_whole_sums, session, share) if session.team.size > 1 else None,
            )
            return seen[0]
        session.optimizer.step(loss)
    return torch.stack(seen).mean()


def _loss(session: Session, output: Tensor, target: Tensor) -> Tensor:
    """Mean loss; classes that the network has no output for are an error of ours, not of torch."""
    outputs = output.shape[-1]
    if outputs < session.classes:
        raise DataInvalid(
            f"targets go up to {session.classes - 1}, and the network has {outputs} outputs"
        )
    return session.judge.loss(output, target)


def _my_part(session: Session, rows: Tensor, weight: float) -> tuple[Tensor, float]:
    """This process's rows, and their share of the terms; one row of share 0 if it has none."""
    if session.team.size == 1:
        return rows, 1.0
    mine = session.team.share(rows)
    if not len(mine):
        return rows[:1], 0.0
    return mine, session.train.weight(mine) / weight


def _penalty(session: Session, *, refresh: bool = True) -> Tensor | None:
    """The price of the factors now; None where there is none."""
    adaptation = session.adaptation
    if adaptation is None or not adaptation.layers or adaptation.weight == 0:
        return None
    return adaptation.penalty(refresh=refresh)


def _whole_loss(session: Session, loss: Tensor, share: float) -> Tensor:
    """The mean over all processes; what each of them heard travels along."""
    if session.team.size == 1:
        return loss.detach()
    waiting = loss.new_tensor(float(session.pending.number is not None))
    sums = session.team.total(torch.stack([loss.detach() * share, waiting]))
    session.heard = sums[1]
    return sums[0]


def _whole_sums(session: Session, share: float, sums: Tensor) -> Tensor:
    """Sums over the terms of all processes of what are means over this one's."""
    return session.team.total(sums * share)


@torch.no_grad()
def judged(session: Session, held: Batches | None) -> tuple[float | None, float | None]:
    """Mean loss and score over held-back samples, the same in all processes; None without them."""
    if held is None:
        return None, None
    session.network.eval()
    team, judge = session.team, session.judge
    loss = torch.zeros(2, dtype=torch.float64, device=team.device)
    sums: Tensor | None = None
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    for rows in held.in_turn(JUDGED_AT_ONCE * team.size):
        mine = team.share(rows)
        weight = held.weight(mine)
        inputs, target = held.take(mine if len(mine) else rows[:1])
        output = session.network(*inputs)
        if not len(mine):
            output, target = output[:0], target[:0]
        part = judge.sums(output, target)
        sums = part if sums is None else sums + part
        if weight:
            loss += torch.stack(
                [judge.loss(output, target).double() * weight, loss.new_tensor(weight)]
            )
        if judge.keeps_outputs:
            outputs.append(team.gather(output))
            targets.append(team.gather(target))
    session.network.train()
    total, terms = team.total(loss).tolist()
    counted = team.total(loss.new_zeros(0) if sums is None else sums)
    every = (torch.cat(outputs), torch.cat(targets)) if outputs else (None, None)
    return total / max(terms, 1.0), judge.score(counted, *every)


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Each step has its own stream, so nothing of it has to be saved, and processes share it.

    Streams of other devices stay: ``torch.manual_seed`` would look for them for a millisecond.
    """
    chosen = derived_seed(seed, "step", step)
    torch.default_generator.manual_seed(chosen)
    if device.type == "cuda":
        torch.cuda.manual_seed(chosen)
