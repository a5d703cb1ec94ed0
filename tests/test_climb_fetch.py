import pytest
from huggingface_hub import constants

from spine_ray.core.weights import weights_from_folder
from spine_ray.search import main
from tests.support.loopback_hub import loopback_hub, point_client_at, repository_of

MODELS = ("test_resnet", "test_vit")
SPACE = "backbone: [test_resnet, test_vit]\nresolution: 32\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with loopback_hub({repository_of(model): model.encode() * 50_000 for model in MODELS}) as hub:
        point_client_at(hub.address, monkeypatch)
        yield hub


@pytest.fixture
def fetch(tmp_path, monkeypatch, capsys):
    """A function that types `search --space two.yaml --fetch weights`; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(SPACE)

    def typed(*words):
        code = main(["--space", "two.yaml", "--fetch", "weights", *words])
        return code, *capsys.readouterr()

    return typed


def test_what_a_space_needs_is_gathered_and_nothing_else_happens(hub, fetch, tmp_path):
    code, output, errors = fetch()
    assert (code, errors) == (0, "")
    assert set(weights_from_folder(tmp_path / "weights", MODELS).files) == set(MODELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.yaml", "weights"]
    assert sorted(path.name for path in (tmp_path / "weights").glob("[!.]*")) == [
        "SHA256SUMS",
        *(f"{model}.safetensors" for model in MODELS),
    ]
    *files, total, command = [line for line in output.splitlines() if not line.startswith("fetching")]
    assert [line.split("  ")[:2] for line in files] == [
        ["test_resnet.safetensors", "0.6 MB"],
        ["test_vit.safetensors", "0.4 MB"],
    ]
    assert all(line.endswith("from the hub") for line in files)
    assert total.startswith("2 files, 0.9 MB in weights, all of them whole")
    assert command == "  python -m spine_ray.search --space two.yaml --weights weights"


def test_fetching_again_fetches_nothing(hub, fetch):
    fetch()
    asked = len(hub.asked)
    code, output, _ = fetch()
    assert code == 0
    assert len(hub.asked) == asked
    assert output.count("there already") == 2


def test_a_hub_that_is_away_is_one_line_and_exit_code_2(hub, fetch, tmp_path):
    hub.status = 503
    code, _, errors = fetch()
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert "the weights of test_resnet cannot be brought to weights/test_resnet.safetensors: the hub answers" in errors


def test_an_unknown_backbone_is_refused_before_anything_is_fetched(hub, fetch, tmp_path):
    code, _, errors = fetch("--set", "backbone=[test_vit, ../../etc/passwd]")
    assert code == 2
    assert "unknown backbone '../../etc/passwd'" in errors
    assert hub.asked == []
