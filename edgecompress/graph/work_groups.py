"""Which operators came from one layer: those of its factors, and what stands between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgecompress.core.work import Work


def name_groups(works: Sequence[Work], origins: Mapping[str, str]) -> tuple[Work, ...]:
    """The same works with `Work.source_layer` filled in.

    An operator without a layer of its own that only leads from one operator of a layer to others
    of it (a scale, a permutation) is of that layer too.

    Args:
        works: In graph order.
        origins: Node name -> layer that the node was decomposed from.
    """
    if not origins:
        return tuple(works)
    layers = [origins.get(work.name, "") for work in works]
    writers = {use.name: index for index, work in enumerate(works) for use in work.writes}
    readers: dict[str, list[int]] = {}
    for index, work in enumerate(works):
        for use in work.reads:
            readers.setdefault(use.name, []).append(index)
    after = list(layers)
    for index in reversed(range(len(works))):
        following = {
            after[reader] for use in works[index].writes for reader in readers.get(use.name, ())
        }
        if not after[index] and len(following) == 1:
            after[index] = following.pop()
    before = list(layers)
    for index, work in enumerate(works):
        leading = {before[writers[use.name]] for use in work.reads if use.name in writers}
        if not before[index] and len(leading - {""}) == 1:
            before[index] = (leading - {""}).pop()
    named = [
        own or (behind if behind == ahead else "")
        for own, behind, ahead in zip(layers, before, after, strict=True)
    ]
    return tuple(
        replace(work, source_layer=layer) if layer else work
        for work, layer in zip(works, named, strict=True)
    )
