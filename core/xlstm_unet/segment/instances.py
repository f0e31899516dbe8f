r"""Instances from a foreground map and a distance map.

Seeds are the h-maxima of the smoothed distance, grown by watershed inside the foreground. Instead of a
grey-scale reconstruction (slow, and deaf to a wish to cancel), every voxel climbs to the top of its basin;
a basin that rises less than h above the pass to a neighbour belongs to that neighbour. Climbing is local,
so it is done block by block; only the graph of basins is global. The result does not depend on the blocks.

::

    distance   /\        /\  /\          h = seed height
              /  \      /  \/  \         the right pass is less than h below the lower top:
             /    \____/        \        two objects, not three
    basin    1111111222222233333333
    object   11111112222222222222222
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment.blocks import BlockRegions, Contacts, Slices, find_regions, split, strongest

STAGE = "decoding"

SMOOTHING = 0.7
"""Standard deviation, in voxels, of the Gaussian on the distance map, at least."""
_SMOOTHING_OF_DIAMETER = 0.04
"""The same as a share of the diameter: ripples of large objects are larger."""
_MOST_SMOOTHING = 4.0
"""Voxels beyond which it would cost more than it gives: maps of objects that large are smooth."""

_BLOCK = {2: 512, 3: 64}
_POLL = 20_000


def decode_instances(
    foreground: NDArray[np.floating],
    distance: NDArray[np.floating],
    *,
    threshold: float = 0.5,
    seed_height: float = 0.15,
    min_size: int = 0,
    min_sureness: float = 0.0,
    smoothing: float = SMOOTHING,
    block: int | None = None,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> NDArray[np.int32]:
    """Separate objects by watershed from the h-maxima of their distance map.

    Parameters
    ----------
    foreground
        Probability of belonging to any object, (Y, X) or (Z, Y, X), any float dtype.
    distance
        Distance to the edge of the object, 1 at its middle and 0 outside; same shape.
    threshold
        Voxels above it belong to objects.
    seed_height
        How far the distance must fall between two tops for them to be two objects. An object whose
        top is lower than this is dropped.
    min_size
        Objects of fewer voxels are dropped.
    min_sureness
        Sureness of an object is how far its mean foreground probability lies above ``threshold``. Objects
        with less than this share of the median object's are dropped.
    smoothing
        Standard deviation, in voxels, of the Gaussian that takes ripples off the distance map; see
        `smoothing_for`. Too much lets small touching objects grow together, too little splits large ones.
    block
        Largest extent of a block along an axis; None for a usual one. It changes memory and the time
        between two looks at ``cancel``, not the result.
    on_progress, cancel
        Called for every block.

    Returns
    -------
    labels
        int32, shape of ``foreground``: 0 background, objects from 1 without gaps, in raster order of
        their tops. Holes inside one object are filled.

    Raises
    ------
    ValueError
        If the maps differ in shape or are not 2D or 3D.
    CancelledError
        If ``cancel`` says so.
    """
    if foreground.shape != distance.shape or foreground.ndim not in _BLOCK:
        raise ValueError(
            f"foreground is {foreground.shape} and distance {distance.shape}, expected one 2D or 3D shape"
        )
    labels = np.zeros(foreground.shape, dtype=np.int32)
    if labels.size == 0:
        return labels
    blocks = list(split(foreground.shape, block or _BLOCK[foreground.ndim]))
    steps = 2 * len(blocks)
    parts = []
    n_basins = n_background = 0
    for done, core in enumerate(blocks):
        check_cancelled(cancel)
        local, part = find_regions(foreground, distance, core, threshold, smoothing)
        labels[core] = np.where(local > 0, local + n_basins, local - n_background)
        parts.append(part)
        n_basins += part.peaks.size
        n_background += part.n_background
        if on_progress is not None:
            on_progress(Progress(STAGE, done + 1, steps))
    graph = _join(parts, labels, blocks, cancel)
    table = _object_table(graph, threshold, seed_height, min_size, min_sureness, cancel)
    for done, core in enumerate(blocks):
        check_cancelled(cancel)
        labels[core] = table[labels[core] + graph.n_background]
        if on_progress is not None:
            on_progress(Progress(STAGE, len(blocks) + done + 1, steps))
    return labels


def smoothing_for(diameter: float | None) -> float:
    """Return the standard deviation of the smoothing, in voxels, for objects of a diameter in voxels."""
    if diameter is None:
        return SMOOTHING
    return min(max(_SMOOTHING_OF_DIAMETER * diameter, SMOOTHING), _MOST_SMOOTHING)


@dataclass(frozen=True)
class _Graph:
    """Regions of the whole image. Region numbers are as in the label array: basins > 0, background < 0."""

    peaks: NDArray[np.float32]
    """Height of the top of each basin; entry 0 stands for none."""
    tops: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masses: NDArray[np.float64]
    target: NDArray[np.int64]
    """The basin that each basin number means, which differs for basins that go on in another block."""
    passes: Contacts
    shores: Contacts
    """Any other contacts, background with background or with basins, by number in the label array."""
    edge: NDArray[np.int64]
    """Numbers that occur on the faces of the image."""
    n_background: int


def _join(
    parts: list[BlockRegions], labels: NDArray[np.int32], blocks: list[Slices], cancel: Cancel | None
) -> _Graph:
    """Put the blocks' regions together: basins that cross a seam become one."""
    basins = np.cumsum([0, *(part.peaks.size for part in parts)])
    pieces = np.cumsum([0, *(part.n_background for part in parts)])

    def gather(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    check_cancelled(cancel)
    tops, leaves = gather("tops"), gather("leaves").astype(bool)
    target = np.arange(basins[-1] + 1)
    target[1:][leaves] = labels.reshape(-1)[tops[leaves]]
    while not np.array_equal(target, further := target[target]):
        target = further
    sizes = np.bincount(target[1:], weights=gather("sizes"), minlength=target.size).astype(np.int64)
    masses = np.bincount(target[1:], weights=gather("masses"), minlength=target.size).astype(np.float64)
    check_cancelled(cancel)
    first = np.concatenate([p.passes.first + n for p, n in zip(parts, basins, strict=False)])
    second = np.concatenate([p.passes.second + n for p, n in zip(parts, basins, strict=False)])
    height = np.concatenate([p.passes.height for p in parts])
    first, second = target[first], target[second]
    differ = first != second
    passes = strongest(first[differ], second[differ], height[differ])
    check_cancelled(cancel)
    seams = _seam_pairs(labels, blocks)
    shore_first = [p.shores.first + n for p, n in zip(parts, basins, strict=False)]
    shore_second = [-(p.shores.second + n) for p, n in zip(parts, pieces, strict=False)]
    one = np.concatenate([*shore_first, seams[0]])
    other = np.concatenate([*shore_second, seams[1]])
    faces = [labels.take(index, axis).reshape(-1) for axis in range(labels.ndim) for index in (0, -1)]
    return _Graph(
        peaks=np.concatenate([np.zeros(1, np.float32), gather("peaks")]),
        tops=np.concatenate([np.zeros(1, np.int64), tops]),
        sizes=sizes,
        masses=masses,
        target=target,
        passes=passes,
        shores=Contacts(one, other, np.zeros(one.size, np.float32)),
        edge=np.unique(np.concatenate(faces)).astype(np.int64),
        n_background=int(pieces[-1]),
    )


def _seam_pairs(labels: NDArray[np.int32], blocks: list[Slices]) -> NDArray[np.int64]:
    """Pairs of regions with background on at least one side that face each other across a seam."""
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    for axis in range(labels.ndim):
        for start in sorted({core[axis].start for core in blocks} - {0}):
            two = np.stack([labels.take(start - 1, axis).reshape(-1), labels.take(start, axis).reshape(-1)])
            pairs.append(np.unique(two[:, two.min(axis=0) < 0].astype(np.int64), axis=1))
    return np.concatenate(pairs, axis=1)


def _object_table(
    graph: _Graph,
    threshold: float,
    seed_height: float,
    min_size: int,
    min_sureness: float,
    cancel: Cancel | None,
) -> NDArray[np.int32]:
    """Object of every region, as a table indexed by region number + ``n_background``."""
    owner, peaks = _merge_basins(graph, seed_height, cancel)
    sizes = np.bincount(owner, weights=graph.sizes, minlength=owner.size)
    masses = np.bincount(owner, weights=graph.masses, minlength=owner.size)
    roots = np.flatnonzero(
        (owner == np.arange(owner.size)) & (sizes >= max(min_size, 1)) & (peaks >= seed_height)
    )
    if roots.size:
        sureness = masses[roots] / sizes[roots] - threshold
        roots = roots[sureness >= min_sureness * np.median(sureness)]
    roots = roots[np.argsort(graph.tops[roots], kind="stable")]
    number = np.zeros(owner.size, dtype=np.int32)
    number[roots] = np.arange(1, roots.size + 1, dtype=np.int32)
    objects = number[owner[graph.target]]
    objects[0] = 0
    table = np.concatenate([np.zeros(graph.n_background, dtype=np.int32), objects])
    check_cancelled(cancel)
    return _fill_holes(table, graph)


def _merge_basins(
    graph: _Graph, seed_height: float, cancel: Cancel | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Join basins over passes from the highest down; return each basin's root and the roots' heights."""
    passes = graph.passes
    size = graph.peaks.size
    # Only the passes of a maximum spanning tree can join basins; weights must be positive to count as edges.
    weights = coo_array((2.0 - passes.height.astype(np.float64), (passes.first, passes.second)), (size, size))
    tree = minimum_spanning_tree(weights.tocsr()).tocoo()
    order = np.argsort(tree.data, kind="stable")
    owner = list(range(size))
    peaks = graph.peaks.tolist()
    edges = zip(
        tree.row[order].tolist(), tree.col[order].tolist(), (2.0 - tree.data[order]).tolist(), strict=True
    )
    for count, (first, second, height) in enumerate(edges):
        if count % _POLL == 0:
            check_cancelled(cancel)
        a, b = _root(owner, first), _root(owner, second)
        if peaks[a] < peaks[b]:
            a, b = b, a
        if peaks[b] - height < seed_height:
            owner[b] = a
    found = np.asarray(owner, dtype=np.int64)
    while not np.array_equal(found, further := found[found]):
        found = further
    return found, np.asarray(peaks, dtype=np.float32)


def _root(owner: list[int], index: int) -> int:
    while owner[index] != index:
        owner[index] = owner[owner[index]]
        index = owner[index]
    return index


def _fill_holes(table: NDArray[np.int32], graph: _Graph) -> NDArray[np.int32]:
    """Give background (and dropped objects) that is wholly inside one object to that object."""
    shift = graph.n_background
    passes = graph.passes
    one = np.concatenate([graph.shores.first, passes.first]) + shift
    other = np.concatenate([graph.shores.second, passes.second]) + shift
    both = (table[one] == 0) & (table[other] == 0)
    links = coo_array((np.ones(int(both.sum())), (one[both], other[both])), (table.size, table.size))
    _, group = connected_components(links, directed=False)
    inner = np.where(table[one] == 0, one, other)
    outer = table[np.where(table[one] == 0, other, one)]
    shore = (table[inner] == 0) & (outer > 0)
    lowest = np.full(group.max() + 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.zeros(group.max() + 1, dtype=np.int32)
    np.minimum.at(lowest, group[inner[shore]], outer[shore])
    np.maximum.at(highest, group[inner[shore]], outer[shore])
    enclosed = lowest == highest
    enclosed[group[graph.edge + shift]] = False
    enclosed &= highest > 0
    filled = (table == 0) & enclosed[group]
    return np.where(filled, highest[group], table).astype(np.int32)
