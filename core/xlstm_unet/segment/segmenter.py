"""A model ready to segment images: from any image to labels on its own grid."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch

from xlstm_unet.images import as_image, oriented
from xlstm_unet.nets import Network
from xlstm_unet.progress import Cancel, OnProgress, check_cancelled
from xlstm_unet.segment.job import Job
from xlstm_unet.segment.nnunet_job import NnunetJob
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.segment.region import check_field_of_view, crop, region_slices
from xlstm_unet.segment.segmentation import Maps, Segmentation, decode_maps, number_on
from xlstm_unet.spec import ModelSpec


class Segmenter:
    """A model loaded on a device.

    Parameters
    ----------
    spec
        The model.
    network
        Its network, in float32; a copy of it is made for the device.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    tile
        Size of a tile in voxels at the model's scale, one number or one an axis; None for the usual one.
    name
        What to call the model; its own name by default.

    Raises
    ------
    DeviceError
        If there is no such device.
    ModelError
        If the tile does not fit the model.

    Examples
    --------
    >>> segmenter = Segmenter(spec, network)  # doctest: +SKIP
    >>> segmenter(image).labels.max()  # doctest: +SKIP
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        *,
        device: str = "auto",
        tile: int | Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.spec = spec
        self.name = name or spec.name
        self._predictor = Predictor(spec, network, device=device, tile=tile)

    @property
    def device(self) -> torch.device:
        """Where the network runs at present."""
        return self._predictor.device

    def __call__(
        self,
        image: Any,
        *,
        region: Sequence[slice] | None = None,
        diameter: float | None = None,
        keep_maps: bool = False,
        mirror: bool | None = None,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> Segmentation:
        """Segment an image.

        Parameters
        ----------
        image
            An `Image`, or an array that `as_image` can read. A 2D model takes Z stacks and time series
            slice by slice, a 3D model time series frame by frame; numbers of objects are unique over all.
            Volumes with an affine are turned to the axes that the model expects, and labels back.
        region
            One slice for each spatial axis (Z, Y, X) of the image: only this part is segmented, with
            intensities scaled as for the whole image (as for the part where the model expects a part).
        diameter
            Diameter of the objects in pixels of the image, for models of instances. Where it is not
            given, pixel size decides if known, else the diameter is estimated.
        keep_maps
            Keep the maps, so that `Segmentation.decode` can apply other settings.
        mirror
            Average over mirrored copies: up to four (2D) or eight (3D) times slower, a little better.
            None: as the model says.
        on_progress
            Called with `Progress` for every tile and every block.
        cancel
            Asked several times a second.

        Raises
        ------
        ImageError
            If the image, region or diameter cannot be used.
        ModelError
            If a diameter is given for a model that has none.
        DeviceError
            If memory does not suffice for the smallest tile.
        CancelledError
            If ``cancel`` says so.
        """
        started = perf_counter()
        source = as_image(image)
        check_cancelled(cancel)
        window = region_slices(source, region)
        check_field_of_view(source, self.spec, window)
        as_nnunet = self.spec.pipeline == "nnunet"
        takes_volumes = self.spec.dimension == 3 or as_nnunet
        turned, turn = oriented(source, self.spec.orientation if takes_volumes else None)
        inner = crop(turned, turn.window(window))
        job = (NnunetJob if as_nnunet else Job)(
            inner,
            turned if self.spec.field_of_view is None else inner,
            self._predictor,
            diameter=diameter,
            mirror=self.spec.mirror if mirror is None else mirror,
            on_progress=on_progress,
            cancel=cancel,
        )
        decoding = self.spec.decoding.model_copy(update={"min_size": job.scale.min_size(self.spec)})
        labels = np.zeros(source.label_shape, dtype=np.int32)
        place = tuple(window[axis] for axis in source.label_axes)
        target = labels[place]
        kept = np.zeros((self._predictor.outputs, *inner.label_shape), np.float16) if keep_maps else None
        n_objects = 0
        for index, maps, report in job.maps():
            if maps is None:
                continue
            found = decode_maps(
                maps, self.spec, decoding, diameter=job.scale.diameter, on_progress=report, cancel=cancel
            )
            n_objects = number_on(found, n_objects, self.spec)
            target[index] = turn.back(found)
            if kept is not None:
                for target_map, found_map in zip(kept, maps, strict=True):
                    target_map[index] = found_map
        notes = (*job.notes, job.scale.note, self._predictor.memory.note)
        return Segmentation(
            labels=labels,
            spec=self.spec,
            axes=source.label_axes,
            spacing=source.spacing,
            unit=source.unit,
            affine=source.affine,
            maps=None if kept is None else Maps(kept, place, turn),
            decoding=decoding,
            diameter=job.scale.diameter,
            notes=tuple(note for note in notes if note),
            seconds=perf_counter() - started,
            device=str(self.device),
        )
