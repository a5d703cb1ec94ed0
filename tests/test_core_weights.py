import hashlib
import pickle
import socket

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from spine_ray.core.backbone import make_model
from spine_ray.core.network import Network
from spine_ray.core.weights import (
    RANDOM,
    SUMS_FILE,
    WeightsOutOfReachError,
    gather_weights,
    on_this_machine,
    weights_again,
    weights_from_cache,
    weights_from_folder,
    weights_from_hub,
    weights_of_stand_ins,
)
from spine_ray.space.stand_ins import stand_ins_folder
from tests.support.loopback_hub import loopback_hub, point_client_at, refusing_hub, repository_of

TAGGED = "resnet50.a1_in1k"
MODELS = ("test_resnet", "test_vit")


def test_random_weights_have_no_files():
    assert (RANDOM.kind, RANDOM.source, RANDOM.files, RANDOM.hashes()) == ("random", "random", {}, {})


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k.safetensors",
        "resnet50.safetensors",
        "resnet50.a1_in1k/model.safetensors",
        "resnet50/model.safetensors",
    ],
)
def test_a_folder_may_name_its_files_in_four_ways(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"tensors")
    weights = weights_from_folder(tmp_path, [TAGGED])
    assert weights.kind == "pretrained"
    assert weights.source == str(tmp_path)
    assert weights.files == {TAGGED: file}
    assert weights.hashes() == {TAGGED: hashlib.sha256(b"tensors").hexdigest()}


def test_the_file_with_the_tag_goes_before_the_one_without(tmp_path):
    for name in ("resnet50.safetensors", "resnet50.a1_in1k.safetensors", "resnet50.a2_in1k.safetensors"):
        (tmp_path / name).write_bytes(b"")
    files = weights_from_folder(tmp_path, [TAGGED, "resnet50"]).files
    assert [file.name for file in files.values()] == ["resnet50.a1_in1k.safetensors", "resnet50.safetensors"]


def test_a_folder_that_lacks_files_is_refused_with_all_of_them(tmp_path):
    (tmp_path / "test_vit.safetensors").write_bytes(b"")
    (tmp_path / "resnet50.a2_in1k.safetensors").write_bytes(b"")  # of another tag
    with pytest.raises(ValueError, match=r"lacks resnet50\.a1_in1k\.safetensors, test_resnet\.safetensors$"):
        weights_from_folder(tmp_path, [TAGGED, "test_vit", "test_resnet"])


@pytest.mark.parametrize("name", ["nowhere", "a file"])
def test_what_is_no_folder_is_refused_with_what_is_allowed(tmp_path, name):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a folder \(allowed: auto, pretrained, random, or a folder\)"):
        weights_from_folder(tmp_path / name, [TAGGED])


@pytest.mark.parametrize("name", ["resnet50.pth", "resnet50.a1_in1k.pth.tar", "resnet50/pytorch_model.bin"])
def test_a_pickle_in_place_of_safetensors_is_refused_with_the_reason(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} is a pickle, and loading one can run any code: only safetensors"):
        weights_from_folder(tmp_path, [TAGGED])


class Trap:
    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


def test_a_pickle_under_a_safetensors_name_is_not_loaded(tmp_path):
    bare, archive = tmp_path / "resnet50.safetensors", tmp_path / "test_vit.safetensors"
    bare.write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": Trap()}, archive)
    for backbone in (TAGGED, "test_vit"):
        with pytest.raises(ValueError, match="is a pickle, and loading one can run any code"):
            weights_from_folder(tmp_path, [backbone])
    for file in (bare, archive):
        with pytest.raises(ValueError, match="cannot be built from"):
            make_model("test_vit", 32, 10, weights=file)


def test_a_folder_with_sums_is_checked_against_them(tmp_path):
    file = tmp_path / "test_vit.safetensors"
    file.write_bytes(b"tensors")
    (tmp_path / SUMS_FILE).write_text(f"{hashlib.sha256(b'tensors').hexdigest()}  {file.name}\n")
    assert weights_from_folder(tmp_path, ["test_vit"]).files == {"test_vit": file}
    file.write_bytes(b"tensor")
    with pytest.raises(ValueError, match=rf"{file} is damaged: .*{SUMS_FILE} says; copy it again"):
        weights_from_folder(tmp_path, ["test_vit"])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client, and no proxy on the way to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def files():
    """The weights of some test models, by repository."""
    torch.manual_seed(3)
    states = {model: timm.create_model(model).state_dict() for model in MODELS}
    return {
        repository_of(model): save({name: tensor.contiguous() for name, tensor in state.items()})
        for model, state in states.items()
    }


@pytest.fixture
def hub(cache, files, monkeypatch):
    """A hub as it is to the client: large files lie at a store."""
    with loopback_hub(dict(files)) as hub:
        hub.store = True
        point_client_at(hub.address, monkeypatch)
        yield hub


@pytest.fixture
def closed_port(cache, monkeypatch):
    with refusing_hub(monkeypatch) as asked:
        yield asked


def from_hub(*backbones):
    return weights_from_hub(backbones, [].append)


def gather(folder, *backbones):
    return list(gather_weights(backbones, folder, [].append))


def test_weights_come_from_the_hub_once_and_then_from_the_cache(hub, cache, files):
    weights = from_hub("test_resnet")
    assert (weights.kind, weights.source) == ("pretrained", "hub")
    file = weights.files["test_resnet"]
    assert file.is_relative_to(cache)
    content = files[repository_of("test_resnet")]
    assert file.read_bytes() == content
    assert weights.hashes() == {"test_resnet": hashlib.sha256(content).hexdigest()}
    asked = len(hub.asked)
    assert from_hub("test_resnet") == weights
    assert len(hub.asked) == asked


def test_what_the_hub_gives_can_be_built_from_by_any_of_its_names(hub):
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet").layer4[0].conv1.weight
    file = from_hub("test_resnet").files["test_resnet"]
    for name in (file, file.resolve()):  # the second has no suffix, and is what workers are told
        model = make_model("test_resnet", 32, 10, weights=name)
        assert torch.equal(model.layer4[0].conv1.weight, expected)
        assert "state_dict" not in model.pretrained_cfg


def test_a_model_that_timm_would_load_from_an_archive_of_numpys_is_built_from_safetensors(tmp_path):
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert timm.models.get_pretrained_cfg(name).custom_load
    state = timm.create_model(name, img_size=32, num_classes=0).state_dict()
    file = tmp_path / f"{name}.safetensors"
    file.write_bytes(save(state))
    model = make_model(name, 32, 3, weights=file)
    assert torch.equal(model.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])


def test_cached_weights_need_no_hub(hub, monkeypatch):
    weights = from_hub("test_resnet")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_hub("test_resnet") == weights


def test_half_a_file_in_the_cache_is_fetched_anew(hub, files):
    file = from_hub("test_resnet").files["test_resnet"]
    content = files[repository_of("test_resnet")]
    file.resolve().write_bytes(content[: len(content) // 2])
    assert from_hub("test_resnet").files["test_resnet"].read_bytes() == content


def test_half_a_file_in_the_cache_and_no_hub_is_named(hub, monkeypatch):
    file = from_hub("test_resnet").files["test_resnet"]
    file.resolve().write_bytes(b"half")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsOutOfReachError, match=rf"HF_HUB_OFFLINE is set; {file} in the cache is damaged"):
        from_hub("test_resnet")


def test_one_backbone_out_of_reach_is_all_out_of_reach_and_is_named_with_its_file(hub):
    with pytest.raises(WeightsOutOfReachError, match=r"of test_convnext .*404 for timm/test_convnext.*/model\.safe"):
        from_hub("test_resnet", "test_convnext")


def test_a_hub_that_is_not_there_is_found_out_at_once_and_asked_once(closed_port):
    with pytest.raises(WeightsOutOfReachError, match=r"the hub does not answer within 3600 s .*refused"):
        from_hub("test_resnet", "test_vit", "resnet50")
    assert len(closed_port) == 1, "it is neither waited for nor asked again"


def test_a_wrong_hash_is_told_with_the_file_and_nothing_of_it_stays(hub, cache, files):
    repository = repository_of("test_resnet")
    hub.sent = {repository: files[repository][:-1] + b"x"}
    with pytest.raises(WeightsOutOfReachError, match=rf"{repository}/model\.safetensors: the hub sent .* not hash"):
        from_hub("test_resnet")
    assert not list(cache.rglob("*.incomplete"))
    hub.sent = {}
    assert from_hub("test_resnet").files["test_resnet"].read_bytes() == files[repository]


def test_a_backbone_without_weights_on_the_hub_is_refused(closed_port):
    with pytest.raises(ValueError, match="gcvit_tiny has no pretrained weights on the hub") as refusal:
        from_hub("gcvit_tiny")
    assert not isinstance(refusal.value, WeightsOutOfReachError)


def test_gathered_files_are_what_a_folder_of_weights_holds(hub, files, tmp_path):
    found = gather(tmp_path / "weights", *MODELS)
    assert [(file.backbone, file.size, file.origin) for file in found] == [
        (model, len(files[repository_of(model)]), "from the hub") for model in MODELS
    ]
    weights = weights_from_folder(tmp_path / "weights", MODELS)
    assert weights.hashes() == {file.backbone: file.sha256 for file in found}
    assert weights.hashes() == {model: hashlib.sha256(files[repository_of(model)]).hexdigest() for model in MODELS}


def test_gathered_weights_need_no_network_at_all(hub, tmp_path, make_setup, trial_config, monkeypatch):
    gather(tmp_path / "weights", "test_vit")
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: pytest.fail(f"connects to {address}"))
    file = weights_from_folder(tmp_path / "weights", ["test_vit"]).files["test_vit"]
    Network(trial_config("test_vit"), 10, 0, make_setup(weights=file))


def test_gathering_again_fetches_what_is_missing_or_damaged_alone(hub, tmp_path):
    folder = tmp_path / "weights"
    gather(folder, "test_resnet")
    assert [file.origin for file in gather(folder, *MODELS)] == ["there already", "from the hub"]
    (folder / "test_vit.safetensors").write_bytes(b"half")
    assert [file.origin for file in gather(folder, *MODELS)] == ["there already", "from the hub"]
    asked = len(hub.asked)
    assert [file.origin for file in gather(folder, *MODELS)] == ["there already"] * 2
    assert len(hub.asked) == asked


def test_gathering_goes_on_where_it_was_cut_off(hub, tmp_path, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    folder = tmp_path / "weights"
    content = files[repository_of("test_vit")]
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir()
    (folder / f"test_vit.safetensors.{digest[:16]}.incomplete").write_bytes(content[:70_000])
    gather(folder, "test_vit")
    assert set(hub.gets()) == {"bytes=70000-"}
    assert (folder / "test_vit.safetensors").read_bytes() == content


def test_what_the_cache_holds_is_gathered_without_the_hub(hub, tmp_path, monkeypatch):
    from_hub("test_vit")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [file.origin for file in gather(tmp_path / "weights", "test_vit")] == ["from the cache"]


def test_a_file_that_cannot_be_gathered_is_named_and_those_before_it_stay(hub, tmp_path):
    folder = tmp_path / "weights"
    with pytest.raises(
        WeightsOutOfReachError, match=rf"test_convnext cannot be brought to {folder}/test_convnext\.saf"
    ):
        gather(folder, "test_vit", "test_convnext")
    assert set(weights_from_folder(folder, ["test_vit"]).files) == {"test_vit"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ValueError, match="is not a folder"):
        gather(tmp_path / "weights", "test_vit")


def test_a_machine_that_lacks_a_file_of_the_hubs_fetches_it_by_its_content(hub, cache, tmp_path, monkeypatch):
    told = from_hub("test_vit").files["test_vit"].resolve()  # as one machine tells the others
    assert on_this_machine(told, [].append) == told
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "of another machine"))
    cache.rename(tmp_path / "elsewhere")
    assert on_this_machine(told, [].append).read_bytes() == hub.files[repository_of("test_vit")]


def test_a_machine_does_not_take_another_version_of_a_file(hub, cache, tmp_path, monkeypatch):
    told = from_hub("test_vit").files["test_vit"].resolve()
    cache.rename(tmp_path / "elsewhere")
    hub.files[repository_of("test_vit")] += b"x"
    with pytest.raises(ValueError, match="the hub has another version of timm/test_vit"):
        on_this_machine(told, [].append)


def test_a_machine_that_lacks_a_users_file_says_so(tmp_path):
    with pytest.raises(
        ValueError, match=r"this machine has no .*test_vit\.safetensors: name a folder .* that all mach"
    ):
        on_this_machine(tmp_path / "test_vit.safetensors", [].append)


def test_a_safetensors_file_whose_first_byte_is_that_of_a_pickle_is_read(tmp_path):
    # The header's length comes first: 0x80 in its lowest byte is what every pickle of protocol 2 begins with.
    for size in range(300):
        path = tmp_path / "test_vit.safetensors"
        path.write_bytes(save({"a": torch.zeros(1)}, metadata={"fill": "x" * size}))
        if path.read_bytes()[:1] == b"\x80":
            assert weights_from_folder(tmp_path, ["test_vit"]).files == {"test_vit": path}
            return
    raise AssertionError("no header of such a length")


def test_the_cache_alone_answers_with_all_or_nothing_and_nobody_is_asked(hub, cache, files):
    assert weights_from_cache(MODELS) is None
    assert hub.asked == []
    one = from_hub(MODELS[0])
    asked = len(hub.asked)
    assert weights_from_cache(MODELS) is None
    assert weights_from_cache(MODELS[:1]) == one
    assert len(hub.asked) == asked


def test_what_has_no_pretrained_weights_is_in_no_cache(cache):
    assert weights_from_cache(["lcnet_035"]) is None


def test_a_damaged_file_in_the_cache_counts_as_missing(hub):
    file = from_hub("test_resnet").files["test_resnet"]
    file.resolve().write_bytes(b"half")
    assert weights_from_cache(["test_resnet"]) is None


def test_weights_are_found_again_where_a_study_took_them_from(hub, tmp_path):
    (tmp_path / "test_vit.safetensors").write_bytes(b"tensors")
    folder = weights_from_folder(tmp_path, ["test_vit"])
    for first in (from_hub("test_resnet"), folder, weights_of_stand_ins(["test_resnet", "test_vit"])):
        assert weights_again(first.source, list(first.files), [].append) == first


def test_stand_ins_have_their_weights_in_the_package_and_nobody_else_has(cache):
    weights = weights_of_stand_ins(["test_vit"])
    assert (weights.kind, weights.source) == ("pretrained", "stand-ins")
    assert weights.files == {"test_vit": stand_ins_folder() / "test_vit.safetensors"}
    with pytest.raises(ValueError, match=r"lacks resnet18\.safetensors"):
        weights_of_stand_ins(["resnet18"])
