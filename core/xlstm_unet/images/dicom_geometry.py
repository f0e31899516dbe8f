"""Whether the slices of a DICOM series make a volume, and where it lies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError

TOLERANCE = 0.1
"""Slice distances by which a slice may lie off its place."""

_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def check_uniform(headers: list[Any], name: str) -> None:
    """Refuse what is no stack of gray slices of one size, direction and patient."""
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise ImageError(
            f"{name}: files with many frames each are not read.",
            "Convert it to NIfTI, for example with dcm2niix.",
        )
    for field in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        missing = sum(header.get(field) is None for header in headers)
        if missing:
            raise ImageError(
                f"{name}: {missing} of {len(headers)} files have no {field}: no slices of a volume.",
                "Choose a series of images from the scanner, not of reports, screenshots or scouts.",
            )
    uniform = (
        ("size", lambda header: f"{header.Rows} x {header.Columns}"),
        ("number of colours", lambda header: int(header.get("SamplesPerPixel") or 1)),
        ("patient", lambda header: header.get("PatientID")),
        ("frame of reference", lambda header: header.get("FrameOfReferenceUID")),
        ("pixel spacing", lambda header: tuple(round(float(v), 4) for v in header.PixelSpacing)),
        ("direction", lambda header: tuple(round(float(v), 3) + 0 for v in header.ImageOrientationPatient)),
    )
    for what, get in uniform:
        kinds = Counter(map(get, headers))
        if len(kinds) > 1:
            listed = ", ".join(f"{kind} ({count} files)" for kind, count in kinds.most_common(4))
            raise ImageError(
                f"{name}: mixed slices: {len(kinds)} different values of {what}: {listed}.",
                "Copy the files that belong together into a folder of their own.",
            )
    if int(headers[0].get("SamplesPerPixel") or 1) != 1:
        raise ImageError(f"{name}: colour slices, expected gray ones.", "Choose another series.")


def _axes_of_plane(header: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row and along a column."""
    values = np.array([float(value) for value in header.ImageOrientationPatient])
    return values[:3], values[3:]


def sorted_places(headers: list[Any], name: str) -> list[list[int]]:
    """Return which files lie at each place along the normal, from the lowest on."""
    normal = np.cross(*_axes_of_plane(headers[0]))
    sizes = [float(value) for value in headers[0].PixelSpacing]
    if not np.isfinite(normal).all() or np.linalg.norm(normal) < 0.9 or not min(sizes) > 0:
        raise ImageError(
            f"{name}: direction {list(headers[0].ImageOrientationPatient)} and pixel spacing {sizes} "
            "are no right-angled grid.",
            "Export it again.",
        )
    heights = [float(np.dot(normal, [float(v) for v in header.ImagePositionPatient])) for header in headers]
    numbers = [int(header.get("InstanceNumber") or 0) for header in headers]
    order = sorted(range(len(headers)), key=lambda i: (round(heights[i], 3), numbers[i]))
    places: list[list[int]] = []
    for i in order:
        if places and abs(heights[i] - heights[places[-1][0]]) < 1e-2:
            places[-1].append(i)
        else:
            places.append([i])
    counts = Counter(map(len, places))
    if len(counts) > 1:
        listed = ", ".join(f"{count} images at {n} places" for count, n in sorted(counts.items()))
        raise ImageError(
            f"{name}: {listed}: slices are missing, or two series are mixed.",
            "Export the whole series again, into a folder of its own.",
        )
    return places


def slice_step(headers: list[Any], order: list[list[int]], name: str) -> NDArray[np.float64]:
    """Return the way from slice to slice in mm, after checking that it is the same everywhere."""
    first = headers[order[0][0]]
    normal = np.cross(*_axes_of_plane(first))
    places = np.array([[float(v) for v in headers[files[0]].ImagePositionPatient] for files in order])
    if len(order) == 1:
        thickness = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
        return normal * abs(thickness or 1.0)
    gaps = np.diff(places @ normal)
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual) > TOLERANCE * usual
    if off.any():
        at = int(np.argmax(np.abs(gaps - usual)))
        missing = round(float(gaps[off].sum()) / usual) - int(off.sum())
        cause = f"about {missing} slices are missing" if missing > 0 else "slices are unevenly spaced"
        raise ImageError(
            f"{name}: {cause}: {gaps[at]:.4g} mm between slices {at + 1} and {at + 2} of {len(order)}, "
            f"{usual:.4g} mm elsewhere.",
            "Export the whole series again, or resample it to even slices.",
        )
    step: NDArray[np.float64] = (places[-1] - places[0]) / (len(order) - 1)
    drift = np.linalg.norm(places - places[0] - np.arange(len(order))[:, np.newaxis] * step, axis=1)
    if drift.max() > TOLERANCE * usual:
        raise ImageError(
            f"{name}: slices lie up to {drift.max():.3g} mm off a straight line.",
            "Resample it to an even grid.",
        )
    return step


def series_affine(first: Any, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from (column, row, slice, 1) to right, anterior, superior in mm."""
    along_row, along_column = _axes_of_plane(first)
    between_rows, between_columns = (float(value) for value in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = [float(value) for value in first.ImagePositionPatient]
    affine[:3] = _TO_RAS @ affine[:3]
    return affine


def tilt_note(affine: NDArray[np.float64]) -> str:
    """Say by how much the slices lean, where they do."""
    axes = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    lean = float(np.degrees(np.arccos(min(1.0, abs(np.dot(np.cross(axes[:, 0], axes[:, 1]), axes[:, 2]))))))
    return f", gantry tilted by {lean:.1f} degrees" if lean > 0.5 else ""
