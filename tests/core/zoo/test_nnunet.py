from __future__ import annotations

import codecs
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_unet.errors import BundleError
from xlstm_unet.zoo import read_bundle, write_bundle
from xlstm_unet.zoo.nnunet import import_nnunet
from xlstm_unet.zoo.nnunet_weights import rename

DATA = Path(__file__).parents[1] / "nets" / "data"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writable copy of the released 2D Enc results folder."""
    source = next((DATA / "enc_2d").glob("*__*"))
    return Path(shutil.copytree(source, tmp_path / source.name))


def checkpoint_path(folder: Path) -> Path:
    return folder / "fold_all" / "checkpoint_final.pth"


def edit_checkpoint(folder: Path, edit: Edit) -> None:
    path = checkpoint_path(folder)
    content = torch.load(path, weights_only=False)
    edit(content)
    torch.save(content, path)


def edit_json(path: Path, edit: Edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def replace_pickle(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Put another pickle into the archive of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def test_specification_of_a_2d_enc(folder: Path) -> None:
    model = import_nnunet(folder)
    spec = model.spec
    assert (spec.dimension, spec.input_channels, spec.channel_names) == (2, 1, ("MRI",))
    assert (spec.patch_size, spec.spacing) == ((80, 64), None), "pictures have no physical size"
    assert [(label.value, label.name) for label in spec.labels] == [(1, "class1"), (2, "class2")]
    assert [n.scheme for n in spec.normalisation] == ["zscore"]
    assert spec.network.features == (8, 16, 32, 32, 32)
    assert spec.network.encoder_blocks == (2, 2, 2, 1, 1)
    assert spec.network.decoder_blocks == (2, 2, 2, 1)
    assert spec.network.channel_tokens
    assert not spec.network.finest_skip
    assert (spec.pipeline, spec.transpose, spec.orientation) == ("nnunet", (0, 1, 2), None)
    assert (spec.mirror_axes, spec.folds, model.folds) == ((0, 1), 1, ("all",))
    assert not model.network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.network.parameters())


def test_specification_of_a_3d_bot() -> None:
    spec = import_nnunet(str(next((DATA / "bot_3d").glob("*__*")))).spec
    assert (spec.dimension, spec.patch_size, spec.spacing) == (3, (16, 32, 32), (3.0, 1.0, 1.0))
    assert spec.network.variant == "bot"
    assert spec.network.kernels[0] == (1, 3, 3)
    assert spec.network.strides[1] == (1, 2, 2)
    assert spec.network.finest_skip
    assert not spec.network.channel_tokens


def test_ct_normalisation_comes_from_the_plans(folder: Path) -> None:
    def edit(plans: dict[str, Any]) -> None:
        plans["configurations"]["2d"]["normalization_schemes"] = ["CTNormalization"]

    edit_json(folder / "plans.json", edit)
    (ct,) = import_nnunet(folder).spec.normalisation
    assert (ct.scheme, ct.low, ct.high, ct.mean, ct.std) == ("ct", 2.0, 250.0, 120.0, 40.0)


def test_inherited_configuration(folder: Path) -> None:
    def edit(plans: dict[str, Any]) -> None:
        plans["configurations"]["small"] = {"inherits_from": "2d", "spacing": [2.0, 3.0]}

    edit_json(folder / "plans.json", edit)
    edit_json(folder / "plans.json", lambda plans: plans.update(image_reader_writer="SimpleITKIO"))
    edit_checkpoint(folder, lambda c: c["init_args"].update(configuration="small"))
    assert import_nnunet(folder).spec.spacing == (2.0, 3.0)
    edit_json(folder / "plans.json", lambda p: p["configurations"]["2d"].update(inherits_from="small"))
    with pytest.raises(BundleError, match="inherits from itself"):
        import_nnunet(folder)


def add_fold(folder: Path, name: str, shift: float = 0.0, checkpoint: str = "checkpoint_final.pth") -> None:
    """Copy a fold, its finest head shifted."""
    content = torch.load(checkpoint_path(folder), weights_only=False)
    weights = content["network_weights"]
    for tensor in [name for name in weights if name.endswith("seg_layers.3.bias")]:
        weights[tensor] = weights[tensor] + shift
    (folder / name).mkdir()
    torch.save(content, folder / name / checkpoint)


def test_choice_of_folds(folder: Path) -> None:
    add_fold(folder, "fold_10")
    add_fold(folder, "fold_2")
    add_fold(folder, "fold_3", checkpoint="checkpoint_best.pth")
    assert import_nnunet(folder).folds == ("2", "10"), "numbered ones, in order, as in nnU-Net"
    assert import_nnunet(folder, folds=["all"]).folds == ("all",)
    assert import_nnunet(folder, "checkpoint_best.pth").folds == ("3",)
    with pytest.raises(BundleError, match=r"no fold_5/checkpoint_final\.pth"):
        import_nnunet(folder, folds=["5"])
    with pytest.raises(BundleError, match="each once"):
        import_nnunet(folder, folds=["2", "2"])


def test_folds_are_averaged_and_survive_a_bundle(folder: Path, tmp_path: Path) -> None:
    add_fold(folder, "fold_0", shift=1.0)
    add_fold(folder, "fold_1", shift=-4.0)
    alone, model = import_nnunet(folder, folds=["all"]), import_nnunet(folder)
    assert model.spec.folds == 2
    bundle = read_bundle(
        write_bundle(tmp_path / "b", model.spec, model.network, card="", licence="", dtype="float32")
    )
    x = torch.randn(1, 1, *model.spec.patch_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(bundle.build()(x), alone.network(x) - 1.5)


def test_folds_must_be_of_one_kind(folder: Path) -> None:
    add_fold(folder, "fold_0")
    edit_checkpoint(folder, lambda content: content["init_args"].update(configuration="other"))
    (folder / "fold_all").rename(folder / "fold_1")
    with pytest.raises(BundleError, match=r"fold_1.* has init_args 'other', .*fold_0.* '2d'"):
        import_nnunet(folder)


REGIONS = {"background": 0, "whole tumour": [1, 2], "core": [2], "ignore": 3}


def test_regions(folder: Path) -> None:
    def one_output_less(content: dict[str, Any]) -> None:
        weights = content["network_weights"]
        for name in [name for name in weights if ".seg_layers." in name]:
            weights[name] = weights[name][1:]

    edit_json(folder / "dataset.json", lambda d: d.update(labels=REGIONS, regions_class_order=[1, 2]))
    edit_checkpoint(folder, one_output_less)
    spec = import_nnunet(folder).spec
    assert [(r.name, r.values, r.paint) for r in spec.regions] == [
        ("whole tumour", (1, 2), 1),
        ("core", (2,), 2),
    ]
    assert [(n.value, n.name) for n in spec.labels] == [(1, "rest of whole tumour"), (2, "core")]
    assert spec.output_channels == 2


def test_the_ignore_label_is_no_output(folder: Path) -> None:
    edit_json(folder / "dataset.json", lambda d: d["labels"].update(ignore=3))
    assert [label.name for label in import_nnunet(folder).spec.labels] == ["class1", "class2"]


@pytest.mark.parametrize(
    ("reader", "orientation", "unit"),
    [
        ("SimpleITKIO", None, "mm"),
        ("NibabelIO", None, "mm"),
        ("NibabelIOWithReorient", "SAR", "mm"),
        ("NaturalImage2DIO", None, None),
    ],
)
def test_readers(folder: Path, reader: str, orientation: str | None, unit: str | None) -> None:
    edit_json(folder / "plans.json", lambda plans: plans.update(image_reader_writer=reader))
    spec = import_nnunet(folder).spec
    assert (spec.orientation, spec.spacing_unit) == (orientation, unit)


def test_masked_normalisation(folder: Path) -> None:
    edit_json(folder / "plans.json", lambda p: p["configurations"]["2d"].update(use_mask_for_norm=[True]))
    (scheme,) = import_nnunet(folder).spec.normalisation
    assert (scheme.scheme, scheme.masked) == ("zscore", True)


def test_names_of_a_parallel_training(folder: Path) -> None:
    def prefix(content: dict[str, Any]) -> None:
        weights = content["network_weights"]
        content["network_weights"] = {f"module.{name}": tensor for name, tensor in weights.items()}

    edit_checkpoint(folder, prefix)
    import_nnunet(folder)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_under_both_names(folder: Path, module: str) -> None:
    path = checkpoint_path(folder)
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        pickled = archive.read(name)
    assert b"numpy._core.multiarray" in pickled
    replace_pickle(path, pickled.replace(b"numpy._core.multiarray", module.encode()))
    import_nnunet(folder)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class Encode:
    """Calls something harmless that is not allowed either."""

    def __reduce__(self) -> Any:
        return codecs.lookup, ("utf-8",)


def test_hostile_pickle_is_refused_and_not_executed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    hostile = pickle.dumps({"network_weights": Touch(target)}, protocol=2)
    pickle.loads(hostile)
    assert target.is_dir(), "the attack must work where nothing guards against it"
    target.rmdir()
    replace_pickle(checkpoint_path(folder), hostile)
    with pytest.raises(BundleError, match=r"cannot be read as a checkpoint: .*mkdir") as caught:
        import_nnunet(folder)
    assert "weights_only" not in str(caught.value), "never advise to run it"
    assert not target.exists()


@pytest.mark.parametrize("whole_file", [False, True], ids=["zip", "legacy"])
def test_other_callables_are_refused(folder: Path, whole_file: bool) -> None:
    hostile = pickle.dumps({"network_weights": Encode()}, protocol=2)
    if whole_file:
        checkpoint_path(folder).write_bytes(hostile)
    else:
        replace_pickle(checkpoint_path(folder), hostile)
    with pytest.raises(BundleError, match="cannot be read as a checkpoint"):
        import_nnunet(folder)


def test_compressed_archive_is_refused(folder: Path) -> None:
    replace_pickle(checkpoint_path(folder), b"\0" * 10_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="compressed"):
        import_nnunet(folder)


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_truncated_checkpoint(folder: Path, kept: float) -> None:
    path = checkpoint_path(folder)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(BundleError, match=r"checkpoint_final\.pth cannot be read"):
        import_nnunet(folder)


def drop(name: str) -> Edit:
    return lambda content: content["network_weights"].pop(name)


def put(name: str, tensor: Any) -> Edit:
    return lambda content: content["network_weights"].update({name: tensor})


HEAD = "decoder.seg_layers.0.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop(HEAD), r"decoder\.0\.head\.weight .our name. is missing"),
        (put("encoder.extra.weight", torch.zeros(3)), r"encoder\.extra\.weight is unknown"),
        (
            put("encoder.xlstm_layers.0.norm.weight", torch.zeros(8)),
            r"xlstm_layers\.0\.norm\.weight is unknown",
        ),
        (put(HEAD, torch.zeros(3, 32, 3, 3)), r"seg_layers\.0\.weight has shape \[3, 32, 3, 3\], expected"),
        (put(HEAD, torch.full((3, 32, 1, 1), torch.nan)), r"seg_layers\.0\.weight has NaN"),
        (
            put(HEAD, torch.zeros(3, 32, 1, 1, dtype=torch.int64)),
            r"seg_layers\.0\.weight is no array of floating",
        ),
        (put(HEAD, 3.0), r"seg_layers\.0\.weight is no array"),
        (put("decoder.encoder.stem.0.conv1.bias", torch.ones(8)), r"conv1\.bias differs from its duplicate"),
        (put("encoder.stem.1.conv1.all_modules.0.bias", torch.ones(8)), r"all_modules\.0\.bias differs"),
        (
            put("encoder.xlstm_layers.2.norm.weight", torch.zeros(31)),
            r"xlstm_layers\.2\.norm\.weight has shape",
        ),
    ],
    ids=[
        "missing",
        "extra",
        "extra norm",
        "shape",
        "nan",
        "integers",
        "number",
        "encoder",
        "block",
        "unused",
    ],
)
def test_every_tensor_is_accounted_for(folder: Path, edit: Edit, message: str) -> None:
    edit_checkpoint(folder, edit)
    with pytest.raises(BundleError, match=message):
        import_nnunet(folder)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("plans.json", "configurations", {}, "no configuration"),
        ("plans.json", "configurations", 3, "lack a field"),
        ("dataset.json", "labels", {"background": 0, "a": [1, 2]}, "lack a field.*regions_class_order"),
        ("dataset.json", "labels", {"background": 0, "a": "one"}, "expected a number or a list"),
        ("dataset.json", "labels", {"background": 0, "a": 1, "b": 3}, "label values"),
        ("dataset.json", "labels", {"background": 0, "a": 1}, "seg_layers.* has shape"),
    ],
)
def test_unfit_plans(folder: Path, name: str, field: str, value: Any, message: str) -> None:
    edit_json(folder / name, lambda content: content.update({field: value}))
    with pytest.raises(BundleError, match=message):
        import_nnunet(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("previous_stage", "3d_lowres", "refines what 3d_lowres found"),
        ("normalization_schemes", ["Mine"], "'Mine' is unknown"),
        ("patch_size", [80], "strides|patch_size|kernels"),
        ("UNet_base_num_features", 10**9, "does not fit"),
        ("n_conv_per_stage_encoder", [10**9, 2, 2, 2, 2], r"encoder_blocks\.0"),
        ("pool_op_kernel_sizes", [[1, 1], [2, 2]], "strides has 2 entries, expected 5"),
        ("conv_kernel_sizes", "deep", "no valid network|lack a field"),
    ],
)
def test_unfit_configuration(folder: Path, field: str, value: Any, message: str) -> None:
    edit_json(folder / "plans.json", lambda plans: plans["configurations"]["2d"].update({field: value}))
    with pytest.raises(BundleError, match=message):
        import_nnunet(folder)


def test_other_trainers_are_named(folder: Path) -> None:
    edit_checkpoint(folder, lambda content: content.update(trainer_name="nnUNetTrainer"))
    with pytest.raises(BundleError, match=r"'nnUNetTrainer', expected one of nnUNetTrainerUxLSTMBot"):
        import_nnunet(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no plans\.json"):
        import_nnunet(tmp_path)
    with pytest.raises(BundleError, match=r"has no fold_\*/other\.pth"):
        import_nnunet(folder, "other.pth")
    with pytest.raises(BundleError, match="expected the name of a file"):
        import_nnunet(folder, "../fold_all/checkpoint_final.pth")
    edit_checkpoint(folder, lambda content: content.update(init_args=3))
    with pytest.raises(BundleError, match="init_args is no table"):
        import_nnunet(folder)
    edit_checkpoint(folder, lambda content: content.pop("network_weights"))
    with pytest.raises(BundleError, match="has no network_weights"):
        import_nnunet(folder)


def test_renaming_examples() -> None:
    examples = {
        "xlstm.vil.layer.mlstm_cell.igate.bias": "encoder.5.mixer.igate_bias",
        "module.decoder.encoder.stages.0.1.conv2.all_modules.1.weight": "encoder.0.blocks.1.norm2.weight",
        "decoder.upsample_layers.3.conv.bias": "decoder.3.project.bias",
        "encoder.xlstm_layers.1.conv1.conv.weight": "encoder.1.mixer.conv1.weight",
        "encoder.stem.0.conv3.weight": "stem.0.conv3.weight",
    }
    assert {name: rename(name, stages=6) for name in examples} == examples
