from pathlib import Path

import pytest

from osler.errors import ModelNotFoundError
from osler.tasks import locate as module
from osler.tasks.locate import locate


def test_nano_means_the_family_asked_for() -> None:
    assert locate("nano", "medgemma").name == "medgemma-nano"
    assert locate("nano", "medsiglip").name == "medsiglip-nano"
    assert locate("medsiglip-nano", "medgemma").name == "medsiglip-nano"


def test_weights_inside_the_package_come_before_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "osler"
    (installed / "weights" / "medgemma-nano").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(installed / "tasks" / "locate.py"))
    assert locate("nano", "medgemma") == installed / "weights" / "medgemma-nano"


def test_an_installation_without_weights_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "src" / "osler" / "tasks" / "locate.py"))
    with pytest.raises(ModelNotFoundError, match="lacks its weights"):
        locate("nano", "medgemma")


def test_a_folder_is_itself_even_where_it_looks_like_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "google" / "medgemma-4b-it"
    folder.mkdir(parents=True)
    assert locate(folder, "medgemma") == folder
    monkeypatch.chdir(tmp_path)
    assert locate("google/medgemma-4b-it", "medgemma") == Path("google/medgemma-4b-it")


def test_a_hub_id_in_the_local_cache_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    repository = tmp_path / "models--google--medgemma-4b-it"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("google/medgemma-4b-it", "medgemma", ("config.json",)) == snapshot


def test_a_hub_id_without_network_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError) as error:
        locate("google/medgemma-4b-it", "medgemma")
    message = str(error.value)
    assert "`hf download google/medgemma-4b-it --local-dir medgemma-4b-it`" in message
    assert "accept the terms at https://huggingface.co/google/medgemma-4b-it" in message
    assert "give that folder as the model" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["no-such-model", "a/b/c", "../no-such", "", "/no/such/folder"])
def test_what_is_no_model_at_all(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither 'nano' nor a hub id"):
        locate(name, "medgemma")


def test_a_file_is_not_a_model(picture: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="a model is a folder"):
        locate(picture, "medgemma")
