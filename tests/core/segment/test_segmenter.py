"""From images of every kind to labels on their grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError, DeviceError, ImageError, ModelError
from xlstm_unet.images import Image, read_image
from xlstm_unet.measure import score_instances
from xlstm_unet.nets import Network
from xlstm_unet.progress import Progress
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import FieldOfView, Label, ModelSpec, Normalisation

MakeSpec = Callable[..., ModelSpec]
MakeNetwork = Callable[[ModelSpec], Network]
Discs = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def segmenter(disc_model: tuple[ModelSpec, Network]) -> Segmenter:
    return Segmenter(*disc_model, device="cpu")


@pytest.fixture(scope="module")
def class_segmenter(make_spec: MakeSpec, make_network: MakeNetwork) -> Segmenter:
    labels = (Label(value=1, name="anterior"), Label(value=2, name="posterior"))
    spec = make_spec(
        3, (4, 8, 8), task="classes", labels=labels, patch_size=(32, 32, 32),
        normalisation=(Normalisation(scheme="zscore"),), spacing=(1.0, 1.0, 1.0), spacing_unit="mm",
    )  # fmt: skip
    return Segmenter(spec, make_network(spec), device="cpu")


def test_finds_what_the_model_has_learned(segmenter: Segmenter, discs: Discs) -> None:
    image, labels = discs((160, 190), seed=3)
    result = segmenter(image)
    assert score_instances(result.labels, labels).f1_75 >= 0.95
    assert result.labels.dtype == np.int32
    assert result.labels.shape == image.shape
    assert (result.axes, result.unit, result.device) == ("YX", "pixel", "cpu")
    assert result.diameter == pytest.approx(14, rel=0.15)
    assert result.maps is None
    assert result.seconds > 0


def test_whole_and_tiles_agree(disc_model: tuple[ModelSpec, Network], discs: Discs) -> None:
    image, _ = discs((400, 260), count=300)
    whole = Segmenter(*disc_model, device="cpu", tile=512)(image, diameter=14)
    tiles = Segmenter(*disc_model, device="cpu", tile=128)(image, diameter=14)
    assert score_instances(tiles.labels, whole.labels).f1_50 >= 0.98


@pytest.mark.parametrize("diameter", [7, 56])
def test_diameter_given_and_estimated(segmenter: Segmenter, discs: Discs, diameter: int) -> None:
    image, labels = discs((8 * diameter,) * 2 if diameter > 14 else (128, 128), diameter, 50)
    for result in (segmenter(image, diameter=diameter), segmenter(image)):
        assert score_instances(result.labels, labels).f1_50 >= 0.85
        assert result.diameter == pytest.approx(diameter, rel=0.3)
    assert any("given" in note for note in segmenter(image, diameter=diameter).notes)


def test_kept_maps_decode_as_the_labels_were(segmenter: Segmenter, discs: Discs) -> None:
    image, _ = discs((120, 130))
    result = segmenter(image, keep_maps=True)
    assert result.maps is not None
    assert result.maps.values.dtype == np.float16
    np.testing.assert_array_equal(result.decode(), result.labels)
    assert result.decode(min_size=10_000).max() == 0
    assert result.decode(0.999).sum() < result.labels.sum()
    with pytest.raises(ModelError, match="threshold is 2"):
        result.decode(2)
    with pytest.raises(ModelError, match="not kept"):
        segmenter(image).decode()


def test_region_is_segmented_as_part_of_the_whole(segmenter: Segmenter, discs: Discs) -> None:
    image, _ = discs((200, 200), count=150)
    region = (slice(40, 168), slice(None, 128))
    result = segmenter(image, region=region, keep_maps=True, diameter=14)
    outside = np.ones(image.shape, bool)
    outside[region] = False
    assert not result.labels[outside].any()
    whole = segmenter(image, diameter=14)
    assert score_instances(result.labels[50:150, :110], whole.labels[50:150, :110]).f1_50 >= 0.9
    np.testing.assert_array_equal(result.decode(), result.labels)


def test_stacks_and_time_series_slice_by_slice(segmenter: Segmenter, discs: Discs) -> None:
    planes = [discs((70, 64), seed=seed)[0] for seed in range(4)]
    stack = np.stack(planes).reshape(2, 2, 1, 70, 64)
    result = segmenter(Image(stack, "TZCYX"), keep_maps=True, diameter=14)
    assert result.labels.shape == (2, 2, 70, 64)
    assert result.axes == "TZYX"
    found = [set(np.unique(plane)) - {0} for plane in result.labels.reshape(4, 70, 64)]
    assert sum(map(len, found)) == len(set.union(*found)) == result.labels.max()
    np.testing.assert_array_equal(result.decode(), result.labels)
    part = segmenter(Image(stack, "TZCYX"), region=(slice(1, 2), slice(0, 70), slice(0, 64)), diameter=14)
    assert not part.labels[:, 0].any()
    np.testing.assert_array_equal(part.labels[:, 1] > 0, result.labels[:, 1] > 0)


def test_gray_colour_and_alpha(make_spec: MakeSpec, make_network: MakeNetwork, data: Path) -> None:
    spec = make_spec(input_channels=3, accepts_gray=True)
    segmenter = Segmenter(spec, make_network(spec), device="cpu")
    colour = read_image(data / "nuclei" / "images" / "hist_pink_he.png")
    assert segmenter(colour).labels.shape == colour.spatial_shape
    gray = np.asarray(colour.array[0])
    as_gray = segmenter(gray).labels
    np.testing.assert_array_equal(segmenter(np.stack([gray] * 3, -1)).labels, as_gray)
    alpha = np.stack([gray] * 3 + [np.full_like(gray, 255)], -1)
    np.testing.assert_array_equal(segmenter(alpha).labels, as_gray)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64, ">u2"])
def test_dtypes_and_scales_of_intensity_do_not_matter(
    segmenter: Segmenter, discs: Discs, dtype: object
) -> None:
    image, _ = discs((80, 80))
    expected = segmenter(image).labels
    found = segmenter((image.astype(np.float64) * (1 if dtype == np.uint8 else 3)).astype(dtype)).labels
    assert score_instances(found, expected).f1_90 >= 0.95


def test_an_anisotropic_volume_is_resampled_and_back(class_segmenter: Segmenter, data: Path) -> None:
    volume = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    thick = Image(np.ascontiguousarray(volume.array[::2]), "ZYX", (2.0, 1.0, 1.0), "mm")
    result = class_segmenter(thick, keep_maps=True)
    assert result.labels.shape == thick.array.shape
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert any("Resampled from 2 x 1 x 1 mm" in note for note in result.notes)
    np.testing.assert_array_equal(result.decode(), result.labels)
    with pytest.raises(ModelError, match="classes"):
        result.decode(threshold=0.5)
    # What is found is closer to the slices of the full volume than without resampling.
    full = class_segmenter(volume).labels[::2]
    flat = class_segmenter(Image(thick.array, "ZYX", (1.0, 1.0, 1.0), "mm")).labels
    assert (full == result.labels).mean() > (full == flat).mean() + 0.05


def test_volumes_of_a_time_series(class_segmenter: Segmenter) -> None:
    series = np.random.default_rng(0).random((2, 9, 20, 17), dtype=np.float32)
    result = class_segmenter(Image(series, "TZYX", (1.0, 1.0, 1.0), "mm"))
    assert result.labels.shape == series.shape
    single = class_segmenter(Image(series[1], "ZYX", (1.0, 1.0, 1.0), "mm"))
    np.testing.assert_array_equal(result.labels[1], single.labels)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_has_no_objects(segmenter: Segmenter, value: int) -> None:
    result = segmenter(np.full((50, 60), value, np.uint8), keep_maps=True)
    assert not result.labels.any()
    assert not result.decode().any()
    assert any("constant" in note for note in result.notes)


def test_one_pixel(segmenter: Segmenter, class_segmenter: Segmenter) -> None:
    assert segmenter(np.zeros((1, 1), np.uint8)).labels.tolist() == [[0]]
    assert class_segmenter(np.ones((1, 1, 1))).labels.shape == (1, 1, 1)


@pytest.mark.parametrize("shape", [(1, 40), (3, 3), (2, 500)])
def test_thin_and_tiny_images(segmenter: Segmenter, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert segmenter(image).labels.shape == shape


BAD_INPUT = {
    "NaN": (np.array([[1.0, np.nan], [0.0, 1.0]]), "NaN"),
    "infinity": (np.array([[1.0, np.inf], [0.0, 1.0]]), "infinite"),
    "empty": (np.zeros((0, 10), np.uint8), "empty"),
    "bool": (np.zeros((10, 10), bool), "bool"),
    "complex": (np.zeros((10, 10), complex), "complex"),
    "object": (np.array([[None, 1]], dtype=object), "object"),
    "one axis": (np.zeros(10, np.uint8), "1 axes"),
    "six axes": (np.zeros((1,) * 6, np.uint8), "6 axes"),
    "channels": (Image(np.zeros((5, 20, 20), np.uint8), "CYX"), "5 channels"),
    "text": ("picture.png", "axes|numpy|dtype"),
}


@pytest.mark.parametrize(("image", "message"), BAD_INPUT.values(), ids=list(BAD_INPUT))
def test_bad_images_are_refused_with_the_reason(segmenter: Segmenter, image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        segmenter(image)


def test_wrong_dimension_is_refused(class_segmenter: Segmenter) -> None:
    with pytest.raises(ImageError, match=r"2D.*3D") as caught:
        class_segmenter(np.random.default_rng(0).random((30, 30)))
    assert caught.value.hint


def test_a_huge_image_is_refused_before_it_is_touched(segmenter: Segmenter) -> None:
    huge = np.broadcast_to(np.uint8(0), (2**20, 2**20))
    with pytest.raises(ImageError, match="limit"):
        segmenter(huge)


def test_unknown_device_is_refused(disc_model: tuple[ModelSpec, Network]) -> None:
    with pytest.raises(DeviceError):
        Segmenter(*disc_model, device="cuda:99")


def test_a_model_of_crops_wants_a_region(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    view = FieldOfView(
        description="a crop around one hippocampus", extent_mm=(20.0,) * 3, max_extent_mm=(30.0,) * 3
    )
    spec = make_spec(
        3, (4, 8), task="classes", field_of_view=view, patch_size=(16, 16, 16),
        spacing=(1.0, 1.0, 1.0), spacing_unit="mm",
    )  # fmt: skip
    segmenter = Segmenter(spec, make_network(spec), device="cpu")
    head = Image(np.random.default_rng(0).random((40, 40, 40)), "ZYX", (1.0,) * 3, "mm", name="head")
    with pytest.raises(ImageError, match=r"head.*crop around one hippocampus"):
        segmenter(head)
    region = (slice(0, 20), slice(10, 30), slice(5, 25))
    assert segmenter(head, region=region).labels.shape == (40, 40, 40)


def test_progress_tells_stage_and_steps(segmenter: Segmenter, discs: Discs) -> None:
    steps: list[Progress] = []
    segmenter(discs((64, 64))[0], diameter=14, on_progress=steps.append)
    assert {step.stage for step in steps} == {"network", "decoding"}
    assert all(0 < step.done <= step.total for step in steps)
    steps.clear()
    segmenter(np.stack([discs((64, 64), seed=s)[0] for s in (1, 2)]), diameter=14, on_progress=steps.append)
    assert {step.stage for step in steps} >= {"slice 1 of 2: network", "slice 2 of 2: decoding"}


@pytest.mark.slow
@pytest.mark.parametrize("diameter", [28, None])
def test_cancel_is_heard_within_a_second_in_every_stage(
    disc_model: tuple[ModelSpec, Network], discs: Discs, diameter: float | None
) -> None:
    """Ask for the end at many moments of a long run; each time it must come soon."""
    tile, _ = discs((256, 256), count=200)
    image = np.tile(tile, (5, 5))
    segmenter = Segmenter(*disc_model, device="cpu")
    asked: list[float] = [perf_counter()]
    segmenter(image, diameter=diameter, cancel=lambda: asked.append(perf_counter()) or False)
    asked.append(perf_counter())
    assert max(np.diff(asked)) < 1.0
    for share in (0.05, 0.3, 0.6, 0.9):
        calls = 0
        last = int(len(asked) * share)

        def cancel(last: int = last) -> bool:
            nonlocal calls
            calls += 1
            return calls > last

        with pytest.raises(CancelledError):
            segmenter(image, diameter=diameter, cancel=cancel)


def test_mirrored_copies_are_averaged_as_the_model_says_unless_told_otherwise(
    make_spec: MakeSpec, make_network: MakeNetwork, data: Path
) -> None:
    spec = make_spec(mirror_axes=(1,), mirror=True)
    image = read_image(data / "nuclei" / "images" / "fluo_small.png")

    def foreground(model: ModelSpec, mirror: bool | None) -> np.ndarray:
        found = Segmenter(model, make_network(spec), device="cpu")(image, mirror=mirror, keep_maps=True)
        assert found.maps is not None
        return found.maps.values.astype(np.float32)

    averaged, plain = foreground(spec, True), foreground(spec, False)
    assert np.abs(averaged - plain).max() > 0.02
    np.testing.assert_array_equal(foreground(spec, None), averaged)
    np.testing.assert_array_equal(foreground(spec.model_copy(update={"mirror": False}), None), plain)
