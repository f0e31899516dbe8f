"""Training on volumes: nnU-Net's raw layout, the model's grid, regions, and voxels without truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import Image
from xlstm_unet.learn import Dataset, TrainConfig, open_dataset
from xlstm_unet.learn.bank import Bank
from xlstm_unet.learn.config import Losses
from xlstm_unet.learn.described import read_description
from xlstm_unet.learn.grid import on_model_grid
from xlstm_unet.learn.losses import Targets, region_table, segmentation_loss
from xlstm_unet.learn.optimise import BatchSource
from xlstm_unet.learn.validate import Validator
from xlstm_unet.nets import build_network

CPU = torch.device("cpu")


@pytest.fixture
def folder(raw_folder: Path, tmp_path: Path) -> Path:
    """The data set, to be spoilt."""
    return Path(shutil.copytree(raw_folder, tmp_path / "raw"))


def _describe(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_raw_layout(volumes: Dataset) -> None:
    assert [sample.id for sample in volumes.samples] == ["plain", "turned"]
    assert [len(volumes.split(name)) for name in ("train", "val")] == [1, 1]
    assert volumes.description is not None
    assert [label.name for label in volumes.description.labels] == ["anterior", "posterior"]


def test_several_channels_are_stacked(folder: Path) -> None:
    for name in ("plain", "turned"):
        shutil.copy(folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "imagesTr" / f"{name}_0001.nii.gz")
    with pytest.raises(DatasetError, match=r"has 2 channels, dataset\.json names 1"):
        open_dataset(folder)
    _describe(folder, channel_names={"0": "T1", "1": "T2"})
    sample = open_dataset(folder).samples[0]
    assert sample.image.axes == "CZYX"
    np.testing.assert_array_equal(sample.image.array[0], sample.image.array[1])
    # One channel on another grid.
    path = folder / "imagesTr" / "plain_0001.nii.gz"
    volume: Any = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine + np.eye(4)), path)
    with pytest.raises(DatasetError, match="lies on another grid"):
        open_dataset(folder)
    (folder / "imagesTr" / "plain_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match="has the channels 0001, expected 0000"):
        open_dataset(folder)


def test_channels_by_name(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "named"
    for part in ("images", "labels"):
        shutil.copytree(folder / f"{part}Tr", plain / part)
    for name in ("plain", "turned"):
        (plain / "images" / f"{name}_0000.nii.gz").rename(plain / "images" / f"{name}_t1ce.nii.gz")
    assert [sample.id for sample in open_dataset(plain).samples] == ["plain", "turned"]
    shutil.copy(plain / "images" / "plain_t1ce.nii.gz", plain / "images" / "plain_flair.nii.gz")
    with pytest.raises(DatasetError, match="has the images flair, t1ce"):
        open_dataset(plain)
    assert open_dataset(plain, channels=("T1ce",)).samples[0].image.axes == "ZYX"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": ["T1"]}, "channel_names is"),
        ({"labels": {"0": "background", "1": "a"}}, "expected values by name"),
        ({"labels": {"background": 0}}, "nothing but background"),
        ({"labels": {"background": 0, "a": -1}}, "expected a whole number"),
        ({"labels": {"background": 0, "a": 1}}, "has label 2, dataset.json names 0 to 1"),
        ({"labels": {"background": 0, "a": 1, "ignore": 3}}, "expected 2, the highest"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions_class_order is None"),
    ],
)
def test_spoilt_descriptions(folder: Path, changes: dict[str, object], message: str) -> None:
    _describe(folder, **changes)
    with pytest.raises(DatasetError, match=message):
        open_dataset(folder)


def test_broken_json(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        open_dataset(folder)
    assert read_description(folder / "imagesTr") is None


def test_volumes_are_turned_to_the_models_axes(volumes: Dataset, tiny_volume_fields: dict[str, Any]) -> None:
    plain, turned = volumes.samples
    assert not np.array_equal(plain.labels, turned.labels)
    spec = TrainConfig.model_validate(tiny_volume_fields).model
    plain, turned = on_model_grid(volumes, spec).samples
    np.testing.assert_array_equal(plain.labels, turned.labels)
    np.testing.assert_array_equal(plain.image.array, turned.image.array)


def test_volumes_are_resampled_and_labels_stay_labels(
    volumes: Dataset, tiny_volume_fields: dict[str, Any]
) -> None:
    tiny_volume_fields["model"]["spacing"] = [2.0, 1.0, 1.25]
    spec = TrainConfig.model_validate(tiny_volume_fields).model
    before, after = volumes.samples[0], on_model_grid(volumes, spec).samples[0]
    expected = [round(n / side) for n, side in zip(before.labels.shape, spec.spacing or (), strict=True)]
    assert list(after.labels.shape) == list(after.image.array.shape) == expected
    assert after.image.spacing == (2, 1, 1.25)
    assert set(np.unique(after.labels)) == {0, 1, 2}
    assert np.count_nonzero(after.labels) * 2.5 == pytest.approx(np.count_nonzero(before.labels), rel=0.05)
    flat = replace(before, image=Image(before.image.array[0], "YX"), labels=before.labels[0])
    with pytest.raises(DatasetError, match="takes 3D images"):
        on_model_grid(Dataset("flat", (flat,)), spec)


def _ignore(folder: Path) -> None:
    """Make the posterior part what carries no truth."""
    _describe(folder, labels={"background": 0, "anterior": 1, "ignore": 2})


def test_voxels_without_truth_carry_no_loss(folder: Path, tiny_volume_fields: dict[str, Any]) -> None:
    _ignore(folder)
    data = open_dataset(folder)
    assert {int(value) for value in np.unique(data.samples[0].labels)} == {-1, 0, 1}
    tiny_volume_fields["model"]["labels"] = [{"value": 1, "name": "anterior"}]
    tiny_volume_fields["sampling"] |= {"foreground": 1.0, "empty": 0.0}
    config = TrainConfig.model_validate(tiny_volume_fields)
    fitted = on_model_grid(data, config.model)
    source = BatchSource(Bank(fitted.samples, config.model, CPU), ["", ""], config)
    image, targets = source.draw()
    assert targets.supervised is not None
    assert 0 < int((~targets.supervised).sum()) < targets.classes.numel()
    assert int(targets.classes.min()) == 0
    with torch.no_grad():
        logits = build_network(config.model).forward(image, all_scales=True)
    other = replace(targets, classes=torch.where(targets.supervised, targets.classes, 1))
    losses = [float(segmentation_loss(logits, one, config.losses)) for one in (targets, other)]
    assert losses[0] == losses[1]


def test_regions_are_learned_each_for_itself(folder: Path, tiny_volume_fields: dict[str, Any]) -> None:
    _describe(
        folder,
        labels={"background": 0, "whole": [1, 2], "posterior": 2},
        regions_class_order=[1, 2],
    )
    data = open_dataset(folder)
    assert data.description is not None
    tiny_volume_fields["model"] |= {
        "labels": [label.model_dump() for label in data.description.labels],
        "regions": [region.model_dump() for region in data.description.regions],
    }
    config = TrainConfig.model_validate(tiny_volume_fields)
    table = region_table(config.model)
    assert table is not None
    assert table.tolist() == [[False, True, True], [False, False, True]]
    truth = torch.from_numpy(data.samples[0].labels).long()[None]
    perfect = torch.stack([(truth > 0).float(), (truth == 2).float()], dim=1) * 40 - 20
    losses = Losses(scales=(1.0,))
    assert float(segmentation_loss([perfect], Targets(truth), losses, table)) < 0.01
    swapped = perfect.flip(1)
    assert float(segmentation_loss([swapped], Targets(truth), losses, table)) > 0.5

    class Perfect(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return perfect

    validator = Validator(data.samples[:1], config.model, CPU, max_images=1)
    maps = _predicted(validator, Perfect())
    assert validator.scores(maps, config.model.decoding)["dice"] == 1.0


def _predicted(validator: Validator, network: torch.nn.Module) -> Any:
    """Maps of a network that is used as it is."""
    with pytest.MonkeyPatch.context() as patch:
        keep: Callable[..., torch.nn.Module] = lambda given, device: given  # noqa: E731
        patch.setattr("xlstm_unet.learn.validate.prepare", keep)
        return validator.predict(network)  # type: ignore[arg-type]
