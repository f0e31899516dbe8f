"""What the instance head learns: background, interior and boundary classes, and a distance map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BACKGROUND, INTERIOR, BOUNDARY = 0, 1, 2


def inner_boundary(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels of an object with a face neighbour that is not of the same object.

    The border of the image is no boundary: an object cut by it is open there.

    Parameters
    ----------
    labels
        Instance labels, 2D or 3D, 0 is background.

    Returns
    -------
    numpy.ndarray
        Boolean, shape of ``labels``.
    """
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(labels.ndim))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(labels.ndim))
        differs = labels[before] != labels[after]
        edge[before] |= differs
        edge[after] |= differs
    return np.asarray(edge & (labels > 0))


def instance_targets(labels: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Classes and normalised distance of every object, from its own mask alone.

    The distance of a pixel is the Euclidean distance to the object's inner boundary plus one pixel, divided
    by the object's largest: 1 at its middle, small at its rim, 0 in the background. An object without
    any boundary (it fills the image) is 1 everywhere.

    Parameters
    ----------
    labels
        Instance labels, 2D or 3D, 0 is background.

    Returns
    -------
    classes : numpy.ndarray
        uint8; 0 background, 1 interior, 2 boundary.
    distance : numpy.ndarray
        float32 in 0 to 1.
    """
    edge = inner_boundary(labels)
    inside = labels > 0
    classes = inside.astype(np.uint8)
    classes[edge] = BOUNDARY
    distance = np.zeros(labels.shape, dtype=np.float32)
    if not inside.any():
        return classes, distance
    # No shortest way from inside an object leads across its own boundary: one transform serves all objects.
    depth = ndimage.distance_transform_edt(inside & ~edge) if edge.any() else np.zeros(labels.shape)
    depth = np.where(inside, depth + 1.0, 0.0)
    objects, inverse = np.unique(labels, return_inverse=True)
    inverse = inverse.reshape(labels.shape)
    largest = ndimage.maximum(depth, inverse, index=np.arange(len(objects)))
    scale = np.where(objects > 0, 1.0 / np.maximum(largest, 1.0), 0.0)
    distance[:] = depth * scale[inverse]
    return classes, distance


def object_diameters(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Diameter in pixels of the circle (2D) or ball (3D) as large as each object, in label order."""
    sizes = np.unique(labels[labels > 0], return_counts=True)[1].astype(np.float64)
    if labels.ndim == 2:
        return np.asarray(2.0 * np.sqrt(sizes / np.pi))
    return np.asarray(2.0 * np.cbrt(sizes * 3.0 / (4.0 * np.pi)))
