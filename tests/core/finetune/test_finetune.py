"""Fine-tuning in this process: the same every time, and only from what is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xlstm_unet.errors import CancelledError, CorrectionsError, ModelError, TrainingError
from xlstm_unet.images import Image
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.corrections_prepare import pieces_of
from xlstm_unet.learn.dataset import Sample
from xlstm_unet.learn.finetune import finetune
from xlstm_unet.learn.finetune_batches import BatchMaker
from xlstm_unet.learn.finetune_judge import Judge, held_masks, hold_out
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.learn.finetune_steps import FAR, NEAR, OF_CLASSES, root_share
from xlstm_unet.learn.replay import make_replay
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec

QUICK = FineTuneOptions(batch=2)


def weights(network):
    return torch.cat([t.flatten() for t in network.state_dict().values()])


def same(one, other):
    return torch.equal(weights(one.network), weights(other.network))


def test_as_many_steps_give_the_same_network(spec, network, corrections, pack):
    before = weights(network)
    events = []
    first, again = (
        finetune(spec, network, [corrections], steps=5, replay=pack, options=QUICK, device="cpu", on_event=on)
        for on in (events.append, None)
    )
    assert same(first, again)
    assert torch.equal(weights(network), before), "the root was changed"
    assert not torch.equal(weights(first.network), before)
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5]
    assert first.counts["corrected"] >= 15
    assert first.held_out is not None
    assert first.check.count == len(pack.check)
    assert 0 < first.best_step <= first.switch < first.steps == 5


def test_a_run_within_a_time_is_repeated_by_its_steps(spec, network, corrections, pack):
    timed = finetune(spec, network, [corrections], budget=10, replay=pack, options=QUICK, device="cpu")
    assert timed.steps >= 1
    again = finetune(
        spec,
        network,
        [corrections],
        steps=timed.steps,
        switch=timed.switch,
        replay=pack,
        options=QUICK,
        device="cpu",
    )
    assert same(timed, again)


def test_the_result_keeps_the_root_s_share_of_every_weight(spec, network, corrections, pack):
    tuned, mixed, default = (
        finetune(
            spec,
            network,
            [corrections],
            steps=4,
            replay=pack,
            options=options,
            device="cpu",
        )
        for options in (
            QUICK.model_copy(update={"root_share": 0.0, "judge": False}),
            QUICK.model_copy(update={"root_share": 0.5, "judge": False}),
            QUICK.model_copy(update={"judge": False}),
        )
    )
    root = weights(network)
    assert (tuned.root_share, mixed.root_share) == (0.0, 0.5)
    assert (weights(tuned.network) - root).abs().max() > 1e-4
    torch.testing.assert_close(weights(mixed.network), (root + weights(tuned.network)) / 2)
    share = default.root_share
    assert FAR[1] <= share <= NEAR[1]
    torch.testing.assert_close(
        weights(default.network), share * root + (1 - share) * weights(tuned.network), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ([(5.0, 0.5)], 0.2),  # ten times as bad as at home: new
        ([(5.0, 1.0)], 0.4),
        ([(1.0, 0.2), (7.0, 1.4)], 0.4),  # losses count, not the ratios of batches
        ([(1.0, 1.0)], 0.6),  # as at home
        ([(1.0, 3.0)], 0.6),
        ([(0.0, 1.0)], 0.2),
    ],
)
def test_the_nearer_the_corrections_the_more_of_the_root_is_kept(losses, share):
    assert root_share(losses) == pytest.approx(share)


def test_how_near_corrections_are_is_measured(spec, network, corrections, pack):
    """What the root knows as well as its home keeps more of it than the contrary of what it knows."""
    image, prediction = corrections.image, corrections.prediction
    everywhere = np.ones(prediction.shape, bool)
    known = Corrections(image, prediction, corrections.labels, everywhere)
    contrary = Corrections(image, prediction, (corrections.labels == 0).astype(np.int32), everywhere)
    quick = QUICK.model_copy(update={"judge": False})
    root = finetune(spec, network, [known], steps=120, options=quick, device="cpu").network
    near, far = (
        finetune(spec, root, [taught], steps=1, replay=pack, options=quick, device="cpu").root_share
        for taught in (known, contrary)
    )
    assert near == NEAR[1]
    assert far < near - 0.1, far


def test_what_is_judged_is_what_is_kept(spec, network, corrections, pack, monkeypatch):
    judged = {"held_out": [], "check": []}

    def listen(name, seen):
        score = getattr(Judge, name)

        def listening(self, network):
            seen.append(weights(network))
            return score(self, network)

        monkeypatch.setattr(Judge, name, listening)

    for name, seen in judged.items():
        listen(name, seen)
    tuned = finetune(
        spec, network, [corrections], steps=2, switch=2, replay=pack, options=QUICK, device="cpu"
    )
    for seen in judged.values():
        assert torch.equal(seen[0], weights(network))
        assert torch.equal(seen[-1], weights(tuned.network))


def test_untouched_objects_do_not_matter(spec, network, nuclei):
    image, truth = nuclei
    numbers = np.unique(truth)[1:]
    changed, far = numbers[0], numbers[-1]
    networks = []
    for left_out in (False, True):
        labels = np.where(truth == far, 0, truth) if left_out else truth
        prediction = np.where(labels == changed, 0, labels)
        one = Corrections(image, prediction, labels)
        networks.append(finetune(spec, network, [one], steps=2, options=QUICK, device="cpu"))
    assert same(*networks)


def test_what_is_kept_back_is_not_known(spec, corrections):
    pieces, _ = pieces_of([corrections], spec)
    items = hold_out(pieces, spec, 0.2, seed=0)
    masks = held_masks(pieces, items)
    assert items
    for piece, mask in zip(pieces, masks, strict=True):
        supervision = piece.supervision(spec, mask)
        assert not supervision.known[mask].any()
        assert supervision.known.sum() > 0


def test_few_corrections_are_not_judged(spec, network, corrections, pack):
    labels = corrections.prediction.copy()
    missed = np.setdiff1d(np.unique(corrections.labels), np.unique(labels))[0]
    labels[corrections.labels == missed] = labels.max() + 1
    one = replace(corrections, labels=labels)
    tuned = finetune(spec, network, [one], steps=2, replay=pack, options=QUICK, device="cpu")
    assert tuned.held_out is None
    assert tuned.verdict in ("too-few", "warn", "refuse")


def test_a_model_without_a_replay_pack_can_learn_and_says_what_is_not_known(spec, network, corrections):
    tuned = finetune(spec, network, [corrections], steps=2, options=QUICK, device="cpu")
    assert tuned.check is None
    assert tuned.verdict == "warn"
    assert "replay pack" in tuned.notes[0]


def test_one_pixel_is_enough_to_run(spec, network, nuclei):
    image, truth = nuclei
    labels = truth.copy()
    row, column = np.argwhere(truth == 0)[0]
    labels[row, column] = truth.max() + 1
    tuned = finetune(spec, network, [Corrections(image, truth, labels)], steps=2, options=QUICK, device="cpu")
    assert tuned.counts["added"] == 1


def test_a_whole_image_and_several_images(spec, network, nuclei):
    image, truth = nuclei
    accepted = np.ones(truth.shape, bool)
    many = [
        Corrections(image, np.zeros_like(truth), truth, accepted),
        Corrections(image, truth, truth, accepted),
    ]
    tuned = finetune(spec, network, many, steps=2, options=QUICK, device="cpu")
    assert tuned.counts["images"] == 2
    assert tuned.counts["accepted"] == len(np.unique(truth)) - 1


def test_nothing_corrected_is_refused(spec, network, nuclei):
    image, truth = nuclei
    with pytest.raises(CorrectionsError, match="Nothing is corrected"):
        finetune(spec, network, [Corrections(image, truth, truth)], steps=2, device="cpu")
    with pytest.raises(CorrectionsError, match="Nothing is corrected"):
        finetune(spec, network, [], steps=2, device="cpu")


def test_corrections_of_another_shape_or_channels_are_refused(spec, network, nuclei):
    image, truth = nuclei
    with pytest.raises(CorrectionsError, match="shape"):
        Corrections(image, truth[1:], truth[1:])
    colour = Image(np.stack([image.array, image.array // 2]), "CYX", name="two")
    one = Corrections(colour, np.zeros_like(truth), truth)
    with pytest.raises(CorrectionsError, match="channels"):
        finetune(spec, network, [one], steps=1, device="cpu")


@pytest.mark.parametrize(("words", "arguments"), [("budget", {"budget": 1}), ("steps", {"steps": 0})])
def test_budgets_out_of_range_are_refused(spec, network, corrections, words, arguments):
    with pytest.raises(ModelError, match=words):
        finetune(spec, network, [corrections], device="cpu", **arguments)


def test_models_of_several_networks_are_refused(spec, network, corrections):
    several = spec.model_copy(update={"folds": 3})
    with pytest.raises(ModelError, match="3 networks"):
        finetune(several, network, [corrections], steps=1)


def test_a_loss_that_is_not_finite_ends_it(spec, network, corrections):
    broken = build_network(spec)
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 1"):
        finetune(spec, broken, [corrections], steps=3, options=FineTuneOptions(judge=False, batch=2))


def test_cancel_is_heard_within_a_step(spec, network, corrections):
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    with pytest.raises(CancelledError):
        finetune(
            spec,
            network,
            [corrections],
            steps=100,
            options=FineTuneOptions(judge=False, batch=2),
            cancel=cancel,
            device="cpu",
        )
    assert asked == 41


@pytest.mark.parametrize("trained", ["norms", "decoder"])
def test_only_some_parameters_learn(spec, network, corrections, trained):
    options = FineTuneOptions(trained=trained, judge=False, batch=2, distillation=1.0)
    tuned = finetune(spec, network, [corrections], steps=2, options=options, device="cpu")
    before = network.state_dict()
    moved = {name for name, tensor in tuned.network.state_dict().items() if not tensor.equal(before[name])}
    assert moved
    for name in moved:
        assert ".norm" in name or (name.startswith("decoder.") and trained == "decoder")


@pytest.fixture
def hippocampus(data) -> tuple[Image, np.ndarray, ModelSpec]:
    """A real volume, its labels, and a tiny model of them that may be mirrored left to right."""
    from xlstm_unet.images import read_image, read_labels

    image = read_image(next((data / "hippocampus" / "images").iterdir()))
    truth = np.asarray(read_labels(next((data / "hippocampus" / "labels").iterdir())), np.int32)
    spec = ModelSpec.model_validate(
        {
            "name": "tiny-3d",
            "dimension": 3,
            "task": "classes",
            "labels": [{"value": 1, "name": "anterior"}, {"value": 2, "name": "posterior"}],
            "normalisation": [{"scheme": "zscore"}],
            "patch_size": [16, 16, 16],
            "spacing": [1.0, 1.0, 1.0],
            "spacing_unit": "mm",
            "orientation": "SAR",
            "mirror_axes": [2],
            "network": {
                "variant": "bot",
                "features": [4, 8],
                "kernels": [[3, 3, 3]] * 2,
                "strides": [[1, 1, 1], [2, 2, 2]],
                "encoder_blocks": [1, 1],
                "decoder_blocks": [1],
            },
        }
    )
    return image, truth, spec


def test_front_and_back_of_a_volume_stay_where_they_are(hippocampus):
    image, truth, spec = hippocampus
    one = Corrections(image, np.zeros_like(truth), truth, np.ones(truth.shape, bool))
    pieces, _ = pieces_of([one], spec)
    options = FineTuneOptions(batch=4)
    known = [piece.supervision(spec) for piece in pieces]
    maker = BatchMaker(pieces, known, [], spec, options, (24, 40, 24), torch.device("cpu"))
    seen = 0
    for _ in range(8):
        for classes in maker.draw().corrections.targets.classes:
            front, back = (torch.nonzero(classes == value)[:, 1].float() for value in (1, 2))
            if min(len(front), len(back)) > 200:
                seen += 1
                assert front.median() > back.median(), "axis 1 runs from posterior to anterior"
    assert seen > 10


def test_a_volume_is_rehearsed_by_one_crop_beside_three(hippocampus, spec, corrections, pack):
    image, truth, volumes = hippocampus
    samples = [Sample("one", "train", "one", "mri", image, truth)]
    painted = Corrections(image, np.zeros_like(truth), truth, np.ones(truth.shape, bool))
    for model, taught, replay, size, wanted in (
        (volumes, painted, make_replay(samples, samples, volumes), (16, 16, 16), 1),
        (spec, corrections, pack, (32, 32), 2),
    ):
        pieces, _ = pieces_of([taught], model)
        known = [piece.supervision(model) for piece in pieces]
        for options, count in (
            (FineTuneOptions(), wanted),
            (FineTuneOptions(replay_batch=3), 3),
            (FineTuneOptions(batch=1), 1),  # where memory is short
        ):
            maker = BatchMaker(pieces, known, replay.train, model, options, size, torch.device("cpu"))
            batch = maker.draw()
            assert (len(batch.corrections.image), len(batch.replay.image)) == (options.batch, count)


def test_classes_in_volumes(hippocampus):
    image, truth, spec = hippocampus
    network = build_network(spec, generator=torch.Generator().manual_seed(0)).eval()
    accepted = np.zeros(truth.shape, bool)
    accepted[truth.shape[0] // 2] = True
    prediction = np.where(accepted, 0, truth)
    one = Corrections(image, prediction, truth, accepted)
    tuned = finetune(spec, network, [one], steps=2, options=QUICK, device="cpu")
    assert tuned.counts["added"] >= 1
    assert tuned.root_share == OF_CLASSES
    beyond = replace(one, labels=np.where(truth == 1, 9, truth))
    with pytest.raises(CorrectionsError, match="9"):
        finetune(spec, network, [beyond], steps=2, options=QUICK, device="cpu")
