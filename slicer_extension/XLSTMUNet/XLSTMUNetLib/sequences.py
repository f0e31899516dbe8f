"""Sequences: a volume that changes with time, segmented frame by frame."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util

from xlstm_unet.errors import ImageError


def browser_of(volume: Any) -> Any | None:
    """Return the sequence browser whose frames a volume shows, or None."""
    if volume is None:
        return None
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", volume.GetScene()):
        if browser.IsProxyNodeID(volume.GetID()):
            return browser
    return None


def sequence_of(volume: Any) -> Any:
    """Return the sequence behind a volume.

    Raises
    ------
    ImageError
        If it is not a frame of a sequence, or the sequence has no frames.
    """
    browser = browser_of(volume)
    sequence = browser.GetSequenceNode(volume) if browser is not None else None
    if sequence is None or not sequence.GetNumberOfDataNodes():
        raise ImageError(f"'{volume.GetName()}' is no frame of a sequence.", "Segment it as a single volume.")
    return sequence


class SegmentationSequence:
    """A sequence of segmentations that is browsed together with the images.

    Parameters
    ----------
    volume
        The volume that shows the images' frames.
    segmentation
        The segmentation that is going to show the results; it holds the frame of ``volume`` at the end.
    """

    def __init__(self, volume: Any, segmentation: Any) -> None:
        self._images = sequence_of(volume)
        self._browser = browser_of(volume)
        self._proxy = segmentation
        self._sequence = volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", segmentation.GetName())
        self._sequence.SetIndexName(self._images.GetIndexName())
        self._sequence.SetIndexUnit(self._images.GetIndexUnit())
        self._sequence.SetIndexType(self._images.GetIndexType())

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self._images.GetNumberOfDataNodes())

    def image(self, frame: int) -> Any:
        """Return the image of a frame as a volume node, outside the scene."""
        return self._images.GetNthDataNode(frame)

    def add(self, frame: int) -> None:
        """Store what the segmentation holds now as the result of a frame."""
        self._sequence.SetDataNodeAtValue(self._proxy, self._images.GetNthIndexValue(frame))

    def finish(self) -> None:
        """Browse the results together with the images, from now on."""
        self._browser.AddSynchronizedSequenceNode(self._sequence)
        self._browser.AddProxyNode(self._proxy, self._sequence, False)
        logic = slicer.modules.sequences.logic()
        logic.UpdateProxyNodesFromSequences(self._browser)

    def abandon(self) -> None:
        """Remove the results; the images stay as they are."""
        scene = self._sequence.GetScene()
        if scene is not None:
            scene.RemoveNode(self._sequence)
