import copy
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def validated(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def start_commands(cluster):
    commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


def test_ray_takes_the_file(cluster):
    prepared = validated(cluster)
    assert set(prepared["available_node_types"]) == {"head", "light", "heavy"}
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_refuses_a_misspelt_key(cluster):
    from jsonschema import ValidationError

    with pytest.raises(ValidationError, match="max_worker"):
        validated({**cluster, "max_worker": 3})


def test_no_trial_lands_on_the_head(cluster):
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("group", ["light", "heavy"])
def test_workers_are_spot_labelled_and_scale_to_none(cluster, group):
    node = cluster["available_node_types"][group]
    assert node["labels"] == {"tier": group}
    assert node["min_workers"] == 0
    assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_only_heavy_workers_have_a_gpu(cluster):
    with_gpu = [name for name, node in cluster["available_node_types"].items() if "GPU" in node["resources"]]
    assert with_gpu == ["heavy"]


def test_all_groups_together_fit_under_the_cluster_s_limit(cluster):
    nodes = cluster["available_node_types"].values()
    assert sum(node.get("max_workers", 0) for node in nodes) <= cluster["max_workers"]


def test_every_start_lifts_ray_up_s_limit_of_one_thread_first(cluster):
    commands = start_commands(cluster)
    assert len(commands) == 2
    assert all(command.startswith("unset OMP_NUM_THREADS;") for command in commands)


def test_setup_installs_what_is_locked(cluster):
    mounted = {place for place, source in cluster["file_mounts"].items() if source == "./requirements.lock"}
    assert any(place in command for place in mounted for command in cluster["setup_commands"] if "pip" in command)


def test_the_images_hold_the_locked_ray(cluster):
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert cluster["docker"]["image"] == f"rayproject/ray:{locked[1]}-py311"


def test_every_node_gets_the_token_and_asks_for_it(cluster):
    place = next(place for place, source in cluster["file_mounts"].items() if source == "~/.ray/auth_token")
    exported = next(command for command in cluster["setup_commands"] if "RAY_AUTH_MODE=token" in command)
    assert f"RAY_AUTH_TOKEN_PATH={place}" in exported
