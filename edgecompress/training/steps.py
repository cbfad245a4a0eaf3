"""One step of a run, and how the network is judged between epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from edgecompress.core.errors import DataInvalid
from edgecompress.training.batches import Batches, derived_seed
from edgecompress.training.schedule import rate_at
from edgecompress.training.session import Session
from edgecompress.training.sharding import whole_parameters

JUDGED_AT_ONCE = 1024
"""Samples of a batch that is only judged. Source: a choice; no result depends on it but memory."""


def one_step(session: Session, rows: Tensor, weight: float) -> Tensor:
    """One update; the mean loss of the whole batch, without the penalty, detached."""
    options, place = session.options, session.place
    seed_step(options.seed, place.updates + 1, session.team.device)
    rate = rate_at(options.learning_rate, place.updates, session.steps * options.epochs)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    if options.optimizer == "zeroth-order":
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
    _penalty(session)  # variances follow the cores once a step, and stay while these are perturbed
    first: list[Tensor] = []

    def outputs() -> Tensor:
        seed_step(session.options.seed, session.place.updates + 1, session.team.device)
        output = session.network(*inputs)
        if not first:
            first.append(_loss(session, output, target))
        return output

    def loss() -> Tensor:
        found = _whole_loss(session, _loss(session, outputs(), target), share)
        price = _price(session)
        return found if price is None else found + price

    with torch.no_grad():
        if isinstance(session.optimizer, SubspaceNewton):
            judge = output_loss(session.train.task, target)
            price = None if _price(session) is None else partial(_price, session)
            total = partial(_whole_sums, session, share) if session.team.size > 1 else None
            session.optimizer.step(outputs, judge, price=price, total=total)
        else:
            session.optimizer.step(loss)
    return _whole_loss(session, first[0], share)


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


def _penalty(session: Session) -> Tensor | None:
    """The price of the factors now; None where there is none."""
    adaptation = session.adaptation
    if adaptation is None or not adaptation.layers or adaptation.weight == 0:
        return None
    return adaptation.penalty()


def _whole_loss(session: Session, loss: Tensor, share: float) -> Tensor:
    """The mean over all processes; what each of them heard travels along."""
    if session.team.size == 1:
        return loss.detach()
    waiting = loss.new_tensor(float(session.pending.number is not None))
    sums = session.team.total(torch.stack([loss.detach() * share, waiting]))
    session.heard = sums[1]
    return sums[0]


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
