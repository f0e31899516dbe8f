"""Publishing: what travels is said, a person's words are kept, and the Hub has it in the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xlstm_unet.errors import BundleError, HubError
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.catalogue import main as catalogue
from xlstm_unet.zoo.catalogue import read_catalogue
from xlstm_unet.zoo.get import get_model
from xlstm_unet.zoo.hub import look_up
from xlstm_unet.zoo.push import plan_push, push, travelling_patches
from xlstm_unet.zoo.store import find_model, user_models_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


@pytest.fixture
def mine(tiny: Path, hub: Any) -> Path:
    """A model of the user's own."""
    return Path(shutil.copytree(tiny, user_models_folder() / "mine"))


def test_push_and_get_back(hub: Any, token: str, mine: Path) -> None:
    plan = plan_push(mine, "me/mine")
    assert plan.private
    assert not plan.exists
    assert set(plan.files) == {"model.json", "model.safetensors", "README.md", "LICENSE"}
    result = push(plan)
    repo = hub.repos["me/mine"]
    assert repo.private
    assert result.revision == repo.commits[-1][0]
    assert repo.commits[-1][1]["model.safetensors"] == (mine / "model.safetensors").read_bytes()
    got = get_model(look_up("me/mine"), name="back")
    assert dict.fromkeys(["source"], got.entry.source is not None) == {"source": True}
    assert push(plan_push(mine, "me/mine")).revision == result.revision  # nothing has changed


def test_without_a_token(hub: Any, mine: Path) -> None:
    with pytest.raises(HubError, match=r"answered 401|private"):
        push(plan_push(mine, "me/mine"))


def test_every_patch_is_listed(hub: Any, token: str) -> None:
    folder = find_model("nuclei")
    patches = travelling_patches(folder)
    assert {patch.part for patch in patches} == {"train", "check"}
    assert all(patch.id and patch.objects > 0 for patch in patches)
    assert plan_push(folder, "me/nuclei").patches == patches
    without = plan_push(folder, "me/nuclei", replay=False)
    assert without.patches == ()
    assert "replay.npz" not in without.files
    push(without)
    assert "replay.npz" not in hub.repos["me/nuclei"].commits[-1][1]


def test_what_the_user_wrote_in_the_card_is_kept(hub: Any, token: str, mine: Path) -> None:
    card = (mine / "README.md").read_text().replace("Finds nothing.", "Finds only what I like.")
    (mine / "README.md").write_text(card + "")
    text = plan_push(mine, "me/mine").card
    assert "Finds only what I like." in text
    assert "xlstm-unet segment IMAGES --model tiny" in text


def test_what_was_written_on_the_hub_is_kept(hub: Any, token: str, mine: Path) -> None:
    push(plan_push(mine, "me/mine"))
    files = dict(hub.repos["me/mine"].commits[-1][1])
    edited = files["README.md"].replace(b"Finds nothing.", b"Written on the web page.")
    hub.repos["me/mine"].commit({**files, "README.md": edited})
    assert "Written on the web page." in plan_push(mine, "me/mine").card
    local = (mine / "README.md").read_text().replace("Finds nothing.", "Written here.")
    (mine / "README.md").write_text(local)
    plan = plan_push(mine, "me/mine")
    assert "Written here." in plan.card
    assert any(note.startswith("Limits: your text replaces") for note in plan.notes)


def test_somebody_pushed_in_between(hub: Any, token: str, mine: Path) -> None:
    push(plan_push(mine, "me/mine"))
    (mine / "LICENSE").write_text("mine\n")
    plan = plan_push(mine, "me/mine")
    files = dict(hub.repos["me/mine"].commits[-1][1])
    hub.repos["me/mine"].commit({**files, "LICENSE": b"theirs\n"})
    with pytest.raises(HubError, match="412"):
        push(plan)
    assert hub.repos["me/mine"].commits[-1][1]["LICENSE"] == b"theirs\n"


def test_a_card_without_front_matter_gets_one(hub: Any, token: str, mine: Path) -> None:
    (mine / "README.md").write_text("# Mine\n\nTrained on my slides.\n")
    plan = plan_push(mine, "me/mine", licence="cc-by-4.0")
    parsed = CardText.parse(plan.card)
    assert parsed.licence() == "cc-by-4.0"
    assert "xlstm-unet" in parsed.front()["tags"]
    assert "Trained on my slides." in plan.card
    assert "arXiv:2407.01530" in plan.card


def test_a_users_front_matter_gets_the_tag(hub: Any, token: str, mine: Path) -> None:
    (mine / "README.md").write_text("---\nlicense: mit\ntags:\n- cells\n---\n# Mine\n")
    card = plan_push(mine, "me/mine").card
    assert "- xlstm-unet" in card
    assert "- cells" in card
    assert "license: mit" in card
    with pytest.raises(BundleError, match="names the licence 'mit'"):
        plan_push(mine, "me/mine", licence="cc-by-4.0")


def test_a_damaged_model_is_not_pushed(hub: Any, token: str, mine: Path) -> None:
    (mine / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BundleError):
        plan_push(mine, "me/mine")
    assert "me/mine" not in hub.repos


def test_one_command_publishes_all_embedded_models(hub: Any, token: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    catalogue(["--publish", "project", "--catalogue", str(path)])
    found = read_catalogue(path)
    assert {f"project/xlstm-unet-{model.name}" for model in found.embedded} == set(hub.repos) - {"acme/tiny"}
    for model in found.published:
        repo = hub.repos[model.repo]
        assert repo.commits[-1][0] == model.revision
        assert not repo.private
        assert {file.name for file in look_up(model.repo).files} == set(model.files)
        assert CardText.parse(repo.commits[-1][1]["README.md"].decode()).scores()
    json.loads(path.read_text())


def test_the_catalogue_is_up_to_date(tmp_path: Path) -> None:
    """After a change to an embedded model: ``python -m xlstm_unet.zoo.catalogue``."""
    path = tmp_path / "catalogue.json"
    catalogue(["--catalogue", str(path)])
    assert read_catalogue(path).embedded == read_catalogue().embedded
