"""How a number of blocks is shared among the stages of a network."""

from __future__ import annotations

from itertools import compress

from scalesearch.scaling import Rounding
from scalesearch.spec import Network


def spread_depth(total: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Share `total` blocks among stages as `depths` are, by largest remainder; at least 1 each, ties to the earlier.

    >>> spread_depth(19, (1, 2, 2, 3, 3, 4, 1))
    (1, 2, 2, 4, 4, 5, 1)
    >>> spread_depth(4, (1, 2, 2))
    (1, 2, 1)
    """
    whole = sum(depths)
    exact = [depth * total for depth in depths]
    shared = [max(1, part // whole) for part in exact]
    order = sorted(range(len(depths)), key=lambda i: (shared[i] * whole - exact[i], i))
    while sum(shared) < total:
        for index in order[: total - sum(shared)]:
            shared[index] += 1
    while sum(shared) > total:  # the floor of 1 gave too many: take from the stage farthest above its share
        spare = [i for i in range(len(depths)) if shared[i] > 1]
        shared[max(spare, key=lambda i: (shared[i] * whole - exact[i], i))] -= 1
    return tuple(shared)


def least_depth(base: Network, rounding: Rounding) -> int:
    """Fewest blocks: one in each stage that is scaled in depth."""
    moves = rounding.deepens(base)
    return sum(1 if moved else depth for depth, moved in zip(base.depths, moves, strict=True))


def spread(total: int, base: Network, rounding: Rounding) -> tuple[int, ...]:
    """`total` blocks over the stages of a base, those whose depth is fixed left as they are."""
    moves = rounding.deepens(base)
    if all(moves) or not any(moves):
        return spread_depth(total, base.depths)
    fixed = sum(depth for depth, moved in zip(base.depths, moves, strict=True) if not moved)
    moved = iter(spread_depth(total - fixed, tuple(compress(base.depths, moves))))
    return tuple(next(moved) if moves[index] else depth for index, depth in enumerate(base.depths))
