"""``segment`` on volumes: DICOM, regions, fields of view, channels, segmentations for 3D Slicer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch

from xlstm_unet.images import read_image
from xlstm_unet.nets import build_network
from xlstm_unet.spec import FieldOfView, Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import write_bundle

Invoke = Callable[..., Any]


def make_bundle(folder: Path, **fields: Any) -> Path:
    values: dict[str, Any] = {
        "name": "crops",
        "dimension": 3,
        "task": "classes",
        "labels": (Label(value=1, name="anterior", color=(255, 0, 0)), Label(value=2, name="posterior")),
        "network": NetworkSpec(
            variant="bot",
            mixer="none",
            features=(4, 8),
            kernels=((3, 3, 3),) * 2,
            strides=((1, 1, 1), (2, 2, 2)),
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        ),
        "normalisation": (Normalisation(scheme="percentile"),),
        "patch_size": (24, 24, 24),
        "spacing": (2.0, 2.0, 2.0),
        "spacing_unit": "mm",
        "orientation": "SAR",
    }
    spec = ModelSpec(**values | fields)
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    return write_bundle(folder / spec.name, spec, network, card="An untrained network.", licence="CC0 1.0")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that expects a crop of a head."""
    view = FieldOfView(
        description="a crop around one hippocampus",
        extent_mm=(36.0, 50.0, 35.0),
        max_extent_mm=(58.0, 80.0, 56.0),
    )
    return make_bundle(tmp_path_factory.mktemp("models"), field_of_view=view)


def test_a_whole_head_needs_a_region(invoke: Invoke, crops: Path, data: Path, tmp_path: Path) -> None:
    head, out = data / "brain_dicom.zip", tmp_path / "out"
    common = ("segment", head, "--series", "T1pre_reg", "--model", crops, "--output", out)
    refused = invoke(*common)
    assert refused.exit_code == 1
    assert "the image shows 143 x 220 x 192.5 mm" in refused.stderr
    assert "a crop around one hippocampus (usually 36 x 50 x 35 mm" in refused.stderr
    assert "--region on the command line" in refused.stderr
    assert not out.exists()
    outside = invoke(*common, "--region", "500:520,0:30,0:30mm")
    assert outside.exit_code == 1
    assert "lies outside the image, which reaches over" in outside.stderr

    done = invoke(*common, "--region", "10:50,-30:20,-40:0mm", "--seg-nrrd", "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["images"]
    assert Path(row["labels"]).name == "brain_dicom_T1pre-reg_labels.nii.gz"
    image = read_image(head, series="T1pre_reg")
    labels = nib.load(row["labels"])
    assert labels.shape == image.spatial_shape[::-1]
    assert labels.affine == pytest.approx(image.affine, abs=1e-4)
    values = np.asarray(labels.dataobj)
    found = np.argwhere(values)
    places = (labels.affine @ np.c_[found, np.ones(len(found))].T)[:3]
    assert len(found) > 100
    # The region holds the box; axes lean by 11 degrees, so it may reach further.
    assert places[0].min() > 3
    assert places[0].max() < 57
    assert -50 < places[1].min() < places[1].max() < 40
    assert -60 < places[2].min() < places[2].max() < 20

    header = nrrd.read_header(row["segmentation"])
    assert (header["Segment0_Name"], header["Segment0_Color"]) == ("anterior", "1 0 0")
    again = read_image(row["segmentation"])
    assert again.affine == pytest.approx(image.affine, abs=1e-4)
    assert (again.array.transpose() == values).all()


def test_regions_in_voxels(invoke: Invoke, crops: Path, data: Path, tmp_path: Path) -> None:
    source = data / "hippocampus" / "images" / "hippocampus_125.nii.gz"
    done = invoke("segment", source, "--model", crops, "--output", tmp_path, "--region", "5:30,:20,-15:")
    assert done.exit_code == 0, done.stderr
    labels = np.asarray(nib.load(tmp_path / "hippocampus_125_labels.nii.gz").dataobj).transpose()
    assert labels[5:30, :20, -15:].any()
    labels[5:30, :20, -15:] = 0
    assert not labels.any()
    for text in ("5:30", "1:2,3:4,a:5", "1:2,3:4mm", "1.5:2,3:4,5:6"):
        wrong = invoke("segment", source, "--model", crops, "--output", tmp_path, "--region", text)
        assert wrong.exit_code == 2
        assert "is no region such as" in wrong.stderr


def test_channels_in_files_of_their_own(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    model = make_bundle(
        tmp_path, name="two", input_channels=2, channel_names=("T1", "T2"), field_of_view=None
    )
    source = nib.load(data / "hippocampus" / "images" / "hippocampus_125.nii.gz").slicer[:20, :20, :20]
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(source, folder / "a_0000.nii.gz")
    nib.save(source, folder / "a_0001.nii.gz")
    done = invoke("segment", folder, "--model", model, "--output", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_labels.nii.gz"]
    nib.save(source.slicer[1:], folder / "a_0001.nii.gz")
    unequal = invoke("segment", folder, "--model", model, "--output", tmp_path / "no")
    assert unequal.exit_code == 1
    assert "a_0001: channel of 20 x 20 x 19 voxels, a_0000 has 20 x 20 x 20" in unequal.stderr
    (folder / "a_0001.nii.gz").unlink()
    missing = invoke("segment", folder, "--model", model, "--output", tmp_path / "no")
    assert "files of the channels 0000, model two takes 0000, 0001 (T1, T2)" in missing.stderr
    assert not (tmp_path / "no").exists()


def test_bad_volumes(invoke: Invoke, crops: Path, data: Path, tmp_path: Path) -> None:
    source = nib.load(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    voxels = np.asarray(source.dataobj)
    kinds = {
        "frames": (nib.Nifti1Image(np.stack([voxels] * 2, -1), source.affine), "TZYX"),
        "plane": (nib.Nifti1Image(voxels[:, :, 5], source.affine), "image is 2D"),
        "nan": (nib.Nifti1Image(np.where(voxels > 90, np.nan, voxels), source.affine), "NaN"),
    }
    for name, (file, message) in kinds.items():
        nib.save(file, tmp_path / f"{name}.nii.gz")
        done = invoke("segment", tmp_path / f"{name}.nii.gz", "--model", crops, "--output", tmp_path / "out")
        assert done.exit_code == 1
        assert message in done.stderr
    assert not (tmp_path / "out").exists()
    thin = nib.Nifti1Image(voxels[:, :, 5:6], source.affine)
    nib.save(thin, tmp_path / "thin.nii.gz")
    done = invoke("segment", tmp_path / "thin.nii.gz", "--model", crops, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert nib.load(tmp_path / "out" / "thin_labels.nii.gz").shape == thin.shape
