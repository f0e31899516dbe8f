"""Imported models against nnU-Net's rules, written down here once more with scikit-image and scipy."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

from xlstm_unet.errors import ImageError, ModelError
from xlstm_unet.images import Image, read_image
from xlstm_unet.nets import Network
from xlstm_unet.segment import Segmenter
from xlstm_unet.segment.segmentation import decode_maps
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import import_nnunet, load, write_bundle
from xlstm_unet.zoo.nnunet import ImportedModel

RELEASED = Path(__file__).parents[1] / "nets" / "data"


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 on every processor: random weights magnify what bfloat16 rounds."""
    monkeypatch.setattr("xlstm_unet.nets.runtime.compute_dtype", lambda device: torch.float32)


@pytest.fixture(scope="module")
def brain(data: Path) -> Image:
    """Real MRI, some of it cut to zero, as brain extraction does."""
    image = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    array = image.array[2:24, 4:46, :34].astype(np.float32)
    array[:3], array[:, :, -4:] = 0, 0
    array[10, 20, 10:14] = 0
    return replace(image, array=array, spacing=(2.0, 0.9, 1.1), affine=None, header=None)


@pytest.fixture(scope="module")
def bot() -> ImportedModel:
    """A released 3D Bot (random weights): spacing 3, 1, 1, patch 16, 32, 32."""
    return import_nnunet(next((RELEASED / "bot_3d").glob("*__*")))


@pytest.fixture(scope="module")
def enc() -> ImportedModel:
    """A released 2D Enc (random weights): channel tokens, so that only its patch 80, 64 fits."""
    return import_nnunet(next((RELEASED / "enc_2d").glob("*__*")))


def resized(array: np.ndarray, shape: tuple[int, ...], order: int, apart: bool) -> np.ndarray:
    """Resize (Z, Y, X); slice by slice and then to the nearest slice where Z is taken apart."""
    if not apart:
        return resize(array.astype(float), shape, order, mode="edge", anti_aliasing=False)
    planes = np.stack([resized(plane, shape[1:], order, apart=False) for plane in array])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    grid[0] = (grid[0] + 0.5) * len(array) / shape[0] - 0.5
    return ndimage.map_coordinates(planes, grid, order=0, mode="nearest")


def tiled(array: np.ndarray, tile: tuple[int, ...], network: Network, flips: list[Any]) -> np.ndarray:
    """Logits of (C, *spatial): padded with zeros, half-overlapping tiles, Gaussian weights."""
    rims = [(max(t - n, 0) // 2, -(-max(t - n, 0) // 2)) for t, n in zip(tile, array.shape[1:], strict=True)]
    padded = np.pad(array, [(0, 0), *rims])
    peak = np.zeros(tile)
    peak[tuple(t // 2 for t in tile)] = 1
    weight = ndimage.gaussian_filter(peak, [t / 8 for t in tile], mode="constant")
    weight = (weight / weight.max() * 10).astype(np.float16).astype(float)
    weight[weight == 0] = weight[weight > 0].min()
    starts = []
    for n, t in zip(padded.shape[1:], tile, strict=True):
        steps = int(np.ceil((n - t) / (t * 0.5))) + 1
        starts.append([int(np.round((n - t) / max(steps - 1, 1) * i)) for i in range(steps)])
    total, summed = 0, 0
    for corner in product(*starts):
        place = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        patch = torch.from_numpy(padded[(slice(None), *place)].astype(np.float32))[None]
        with torch.inference_mode():
            logits = sum(network(patch.flip(flip)).flip(flip) for flip in flips)[0].numpy() / len(flips)
        part = np.zeros((len(logits), *padded.shape[1:]))
        part[(slice(None), *place)] = logits * weight
        norm = np.zeros(padded.shape[1:])
        norm[place] = weight
        total, summed = total + part, summed + norm
    inside = tuple(slice(a, a + n) for (a, _), n in zip(rims, array.shape[1:], strict=True))
    return (total / summed)[(slice(None), *inside)]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(0))
    return exponent / exponent.sum(0)


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))


def probabilities(segmenter: Segmenter, image: Image, **options: Any) -> np.ndarray:
    maps = segmenter(image, keep_maps=True, **options).maps
    assert maps is not None
    return maps.values.astype(np.float32)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_volume_is_segmented_by_nnunets_rules(brain: Image, bot: ImportedModel, mirror: bool) -> None:
    spec = bot.spec.model_copy(update={"mirror_axes": (0, 2)})
    found = probabilities(Segmenter(spec, bot.network), brain, mirror=mirror)
    box = box_of(brain.array != 0)
    crop = brain.array[box].astype(float)
    crop = (crop - crop.mean()) / crop.std()
    shape = tuple(round(n * a / b) for n, a, b in zip(crop.shape, brain.spacing, spec.spacing, strict=True))
    assert shape != crop.shape
    # Voxels of 2, .9, 1.1 and 3, 1, 1 are not more than three times as long as wide.
    array = np.clip(resized(crop, shape, 3, apart=False), crop.min(), crop.max())[None]
    flips = [(), (2,), (4,), (2, 4)] if mirror else [()]
    logits = tiled(array, spec.patch_size, bot.network, flips)
    back = np.stack([resized(channel, crop.shape, 1, apart=False) for channel in logits])
    expected = np.zeros((3, *brain.array.shape))
    expected[0] = 1
    expected[(slice(None), *box)] = softmax(back)
    assert found == pytest.approx(expected, abs=4e-3)


def test_long_voxels_are_taken_apart(brain: Image, bot: ImportedModel) -> None:
    image = replace(brain, spacing=(4.5, 1.2, 1.2))
    found = probabilities(Segmenter(bot.spec, bot.network), image)
    box = box_of(brain.array != 0)
    crop = brain.array[box].astype(float)
    crop = (crop - crop.mean()) / crop.std()
    shape = tuple(round(n * a / b) for n, a, b in zip(crop.shape, image.spacing, (3, 1, 1), strict=True))
    array = np.clip(resized(crop, shape, 3, apart=True), crop.min(), crop.max())[None]
    logits = tiled(array, bot.spec.patch_size, bot.network, [()])
    back = np.stack([resized(channel, crop.shape, 1, apart=True) for channel in logits])
    assert found[(slice(None), *box)] == pytest.approx(softmax(back), abs=4e-3)


def test_normalisation_inside_the_mask(brain: Image, bot: ImportedModel) -> None:
    (scheme,) = bot.spec.normalisation
    spec = bot.spec.model_copy(
        update={"normalisation": (scheme.model_copy(update={"masked": True}),), "spacing": brain.spacing}
    )
    found = probabilities(Segmenter(spec, bot.network), brain)
    box = box_of(brain.array != 0)
    crop = brain.array[box].astype(float)
    mask = ndimage.binary_fill_holes(crop != 0)
    assert mask.sum() > (crop != 0).sum(), "there must be a hole"
    inside = (crop - crop[mask].mean()) / crop[mask].std()
    logits = tiled(np.where(mask, inside, crop)[None], spec.patch_size, bot.network, [()])
    assert found[(slice(None), *box)] == pytest.approx(softmax(logits), abs=4e-3)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_2d_model_reads_a_volume_plane_by_plane(
    brain: Image, enc: ImportedModel, transpose: tuple[int, int, int]
) -> None:
    """Its channel tokens take one patch size only: planes are filled up with zeros to it."""
    image = replace(brain, array=brain.array[8:12, :40, :20], spacing=(2.0, 1.0, 1.0))
    spec = enc.spec.model_copy(update={"transpose": transpose, "spacing": (1.3, 1.0), "spacing_unit": "mm"})
    found = probabilities(Segmenter(spec, enc.network), image)
    turned = image.array.transpose(transpose).astype(float)
    box = box_of(turned != 0)
    crop = turned[box]
    crop = (crop - crop.mean()) / crop.std()
    sides = [image.spacing[axis] for axis in transpose]
    shape = (
        len(crop),
        *(round(n * a / b) for n, a, b in zip(crop.shape[1:], sides[1:], (1.3, 1.0), strict=True)),
    )
    array = np.clip(resized(crop, shape, 3, apart=False), crop.min(), crop.max())
    logits = np.stack([tiled(plane[None], spec.patch_size, enc.network, [()]) for plane in array], axis=1)
    back = np.stack([resized(channel, crop.shape, 1, apart=False) for channel in logits])
    expected = np.zeros((3, *turned.shape))
    expected[0] = 1
    expected[(slice(None), *box)] = softmax(back)
    expected = expected.transpose(0, *(1 + transpose.index(axis) for axis in range(3)))
    assert found == pytest.approx(expected, abs=4e-3)


def test_regions_are_painted_in_order(brain: Image, bot: ImportedModel) -> None:
    fields = bot.spec.model_dump()
    fields["regions"] = [
        {"name": "whole", "values": [1, 2], "paint": 1},
        {"name": "part", "values": [2], "paint": 2},
        {"name": "rest", "values": [1], "paint": 1},
    ]
    spec = ModelSpec.model_validate(fields)
    result = Segmenter(spec, bot.network)(brain, keep_maps=True)
    plain = Segmenter(bot.spec, bot.network)(brain, keep_maps=True)
    assert result.maps is not None
    assert plain.maps is not None
    odds, shares = (kept.maps.values.astype(np.float32) for kept in (result, plain))
    sure = ((odds > 0.02) & (odds < 0.98)).all(axis=0) & (brain.array != 0)
    assert sure.sum() > 100
    logits = np.log(odds[:, sure]) - np.log1p(-odds[:, sure])
    assert softmax(logits) == pytest.approx(shares[:, sure], abs=0.02), "the same logits"
    one, two, three = odds > 0.5
    expected = np.where(three, 1, np.where(two, 2, np.where(one, 1, 0)))
    assert np.array_equal(result.labels, expected)
    assert np.array_equal(result.decode(), expected)
    assert np.array_equal(decode_maps(result.maps.values, spec, result.decoding), expected)


def test_a_volume_is_turned_to_what_the_reader_gave(brain: Image, bot: ImportedModel) -> None:
    affine = np.diag([-1.1, 0.9, 2.0, 1.0])
    stored = replace(brain, affine=affine, unit="mm")
    spec = bot.spec.model_copy(update={"orientation": "SAR"})
    turned = Segmenter(bot.spec, bot.network)(replace(brain, array=brain.array[:, :, ::-1]))
    found = Segmenter(spec, bot.network)(stored, keep_maps=True)
    assert np.array_equal(found.labels[:, :, ::-1], turned.labels)
    assert np.array_equal(found.decode(), found.labels)


def test_a_region_is_normalised_like_the_whole(brain: Image, bot: ImportedModel) -> None:
    spec = bot.spec.model_copy(update={"spacing": brain.spacing})
    segmenter = Segmenter(spec, bot.network)
    whole = segmenter(brain)
    region = (slice(3, 19), slice(0, 32), slice(0, 30))
    assert brain.array[region][0].any()
    part = segmenter(brain, region=region)
    inside = np.zeros(brain.array.shape, bool)
    inside[region] = True
    assert not part.labels[~inside].any()
    crop = brain.array[box_of(brain.array != 0)].astype(float)
    patch = (brain.array[region].astype(float) - crop.mean()) / crop.std()
    logits = tiled(patch[None], spec.patch_size, bot.network, [()])
    assert (part.labels[region] == logits.argmax(0)).mean() > 0.999
    assert whole.labels.shape == part.labels.shape


def test_unknown_spacing_is_taken_as_the_models(brain: Image, bot: ImportedModel) -> None:
    result = Segmenter(bot.spec, bot.network)(replace(brain, spacing=None, unit="pixel"))
    assert result.labels.shape == brain.array.shape
    assert any("Spacing unknown: taken as 3 x 1 x 1 mm" in note for note in result.notes)


def test_what_does_not_fit_is_refused(brain: Image, bot: ImportedModel, enc: ImportedModel) -> None:
    segmenter = Segmenter(bot.spec, bot.network)
    with pytest.raises(ImageError, match="image is 2D"):
        segmenter(Image(brain.array[10], "YX"))
    with pytest.raises(ImageError, match="2 channels"):
        segmenter(Image(np.stack([brain.array] * 2), "CZYX"))
    with pytest.raises(ModelError, match="no object diameter"):
        segmenter(brain, diameter=3.0)
    with pytest.raises(ModelError, match=r"takes only \(80, 64\)"):
        Segmenter(enc.spec, enc.network, tile=96)


def test_nothing_is_found_in_nothing(brain: Image, bot: ImportedModel) -> None:
    result = Segmenter(bot.spec, bot.network)(replace(brain, array=np.zeros((6, 7, 8), np.int16)))
    assert not result.labels.any()
    assert any("constant" in note for note in result.notes)


def test_an_imported_bundle_segments_like_the_released_weights(
    tmp_path: Path, brain: Image, bot: ImportedModel
) -> None:
    folder = write_bundle(tmp_path / "bot", bot.spec, bot.network, card="", licence="", dtype="float32")
    assert np.array_equal(load(folder)(brain).labels, Segmenter(bot.spec, bot.network)(brain).labels)
