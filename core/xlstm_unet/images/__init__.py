"""Images: reading, writing, normalising and resampling. Knows no networks and no torch."""

from __future__ import annotations

from xlstm_unet.images.grid import check_same_grid, join_channels
from xlstm_unet.images.image import Image, as_image
from xlstm_unet.images.labels import read_labels, write_labels
from xlstm_unet.images.nrrd_file import write_segmentation
from xlstm_unet.images.orientation import Turn, directions, oriented
from xlstm_unet.images.overlay import draw_overlay, write_overlay
from xlstm_unet.images.prepare import Normaliser, channels_first, fit_normalisation, normalise
from xlstm_unet.images.read import SUFFIXES, image_stem, image_suffix, list_images, read_image
from xlstm_unet.images.resampling import resample
from xlstm_unet.images.volumes import resample_volume

__all__ = [
    "SUFFIXES",
    "Image",
    "Normaliser",
    "Turn",
    "as_image",
    "channels_first",
    "check_same_grid",
    "directions",
    "draw_overlay",
    "fit_normalisation",
    "image_stem",
    "image_suffix",
    "join_channels",
    "list_images",
    "normalise",
    "oriented",
    "read_image",
    "read_labels",
    "resample",
    "resample_volume",
    "write_labels",
    "write_overlay",
    "write_segmentation",
]
