"""The files for `ray up` and KubeRay, checked offline down to the keys that Ray hands on without looking at them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import ClickException
from jsonschema import ValidationError

from tests.support.cluster_form import RAY_JOB, misspelt, prepared, refuse_unknown

ROOT = Path(__file__).parents[1]
AWS, GCP, ON_PREMISE, KUBERAY = "cluster.yaml", "cluster/gcp.yaml", "cluster/on_premise.yaml", "cluster/kuberay.yaml"
UP, CLOUDS = (AWS, GCP, ON_PREMISE), (AWS, GCP)
COMMON = (
    *("cluster_name", "max_workers", "setup_commands", "head_start_ray_commands", "file_mounts", "rsync_exclude"),
    *("provider/type", "auth/ssh_user", "docker/image", "docker/run_options"),
)
GROUPS = (
    *("head_node_type", "idle_timeout_minutes", "upscaling_speed", "provider/region", "provider/availability_zone"),
    *(f"available_node_types/light/{key}" for key in ("resources", "labels", "min_workers", "node_config")),
    *("available_node_types/head/resources/CPU", "available_node_types/heavy/resources/GPU"),
    *("available_node_types/heavy/labels/tier", "available_node_types/heavy/docker/worker_run_options"),
)
TYPOS = {
    AWS: (
        *(f"available_node_types/heavy/node_config/{key}" for key in ("InstanceType", "ImageId")),
        "available_node_types/light/node_config/InstanceMarketOptions/MarketType",
        "available_node_types/head/node_config/BlockDeviceMappings/0/Ebs/VolumeSize",
        "provider/cache_stopped_nodes",
    ),
    GCP: (
        *(f"available_node_types/heavy/node_config/{key}" for key in ("machineType", "metadata/items/0/key")),
        "available_node_types/light/node_config/scheduling/provisioningModel",
        "available_node_types/head/node_config/disks/0/initializeParams/sourceImage",
        "available_node_types/light/node_config/serviceAccounts/0/scopes",
        "provider/project_id",
    ),
    ON_PREMISE: ("provider/head_ip", "provider/worker_ips", "auth/ssh_private_key"),
}
JOB_TYPOS = (
    *("kind", "spec/entrypoint", "spec/backoffLimit", "spec/shutdownAfterJobFinishes"),
    *(f"spec/rayClusterSpec/{key}" for key in ("rayVersion", "authOptions/mode", "autoscalerOptions/version")),
    "spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus",
    *(f"spec/rayClusterSpec/workerGroupSpecs/1/{key}" for key in ("groupName", "maxReplicas", "labels/tier")),
    "spec/rayClusterSpec/workerGroupSpecs/1/template/spec/containers/0/resources/limits/cpu",
    "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/volumes/0/emptyDir/medium",
)


REFUSALS = (ValidationError, ClickException, AssertionError, ValueError, KeyError)
"""Of Ray's schema, of its own checks, of the tables, and of a key that Ray needs and does not find."""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


def locked_ray() -> str:
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    return locked[1]


@pytest.mark.parametrize("name", UP)
def test_ray_and_the_tables_take_the_file(name: str) -> None:
    assert prepared(read(name))["cluster_name"] == "spine-ray"


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in UP for path in (*COMMON, *(GROUPS if name in CLOUDS else ()), *TYPOS[name])],
)
def test_a_letter_too_many_is_refused_in_every_section(name: str, path: str) -> None:
    changed = misspelt(read(name), path)
    with pytest.raises(REFUSALS):
        prepared(changed)


@pytest.mark.parametrize("name", CLOUDS)
def test_no_trial_lands_on_the_head(name: str) -> None:
    cluster = prepared(read(name))
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0


def test_a_head_of_ones_own_offers_nothing() -> None:
    assert "--num-cpus=0 --num-gpus=0" in start_commands(read(ON_PREMISE))[0]


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("group", ["light", "heavy"])
def test_workers_are_labelled_and_scale_to_none(name: str, group: str) -> None:
    node = read(name)["available_node_types"][group]
    assert node["labels"] == {"tier": group}
    assert node["min_workers"] == 0


@pytest.mark.parametrize("group", ["light", "heavy"])
def test_workers_are_spot(group: str) -> None:
    on_aws, on_gcp = (read(name)["available_node_types"][group]["node_config"] for name in CLOUDS)
    assert on_aws["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert on_gcp["scheduling"]["provisioningModel"] == "SPOT"


@pytest.mark.parametrize("name", CLOUDS)
def test_only_heavy_workers_have_a_gpu(name: str) -> None:
    nodes = read(name)["available_node_types"]
    assert [kind for kind, node in nodes.items() if "GPU" in node["resources"]] == ["heavy"]
    assert nodes["heavy"]["docker"]["worker_run_options"] == ["--gpus all"]


@pytest.mark.parametrize("name", CLOUDS)
def test_all_groups_together_fit_under_the_clusters_limit_and_go_when_idle(name: str) -> None:
    cluster = read(name)
    nodes = cluster["available_node_types"].values()
    assert sum(node.get("max_workers", 0) for node in nodes) <= cluster["max_workers"]
    assert 0 < cluster["idle_timeout_minutes"] <= 15


@pytest.mark.parametrize("name", UP)
def test_every_start_lifts_ray_ups_limit_of_one_thread_first(name: str) -> None:
    commands = start_commands(read(name))
    assert len(commands) == 2
    assert all(command.startswith("unset OMP_NUM_THREADS;") for command in commands)


@pytest.mark.parametrize("name", UP)
def test_a_stopped_job_is_interrupted_and_not_killed(name: str) -> None:
    assert "RAY_JOB_STOP_SIGNAL=SIGINT ray start --head" in start_commands(read(name))[0]


@pytest.mark.parametrize("name", UP)
def test_setup_installs_what_is_locked(name: str) -> None:
    cluster = read(name)
    mounted = [place for place, source in cluster["file_mounts"].items() if source == "./requirements.lock"]
    assert any(f"-r {mounted[0]}" in command for command in cluster["setup_commands"])


@pytest.mark.parametrize("name", UP)
def test_the_images_hold_the_locked_ray_and_enough_shared_memory(name: str) -> None:
    docker = read(name)["docker"]
    assert docker["image"] == f"rayproject/ray:{locked_ray()}-py311"
    assert "--shm-size=8g" in docker["run_options"]


@pytest.mark.parametrize("name", UP)
def test_every_node_gets_the_token_and_asks_for_it(name: str) -> None:
    cluster = read(name)
    place = next(place for place, source in cluster["file_mounts"].items() if source == "~/.ray/auth_token")
    exported = next(command for command in cluster["setup_commands"] if "RAY_AUTH_MODE=token" in command)
    assert f"RAY_AUTH_TOKEN_PATH={place}" in exported


def test_kuberay_knows_every_key_of_the_job() -> None:
    job = read(KUBERAY)
    refuse_unknown(job, RAY_JOB, "RayJob")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize("path", JOB_TYPOS)
def test_a_letter_too_many_is_refused_in_every_section_of_the_job(path: str) -> None:
    job = misspelt(read(KUBERAY), path)
    with pytest.raises(ValueError, match=r"has no '.+x'; it has"):
        refuse_unknown(job, RAY_JOB, "RayJob")


def test_the_job_comes_back_goes_away_and_asks_for_the_token() -> None:
    spec = read(KUBERAY)["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["rayVersion"] == locked_ray()
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


@pytest.mark.parametrize("place", [0, 1])
def test_the_jobs_workers_scale_to_none_are_labelled_and_have_shared_memory(place: int) -> None:
    group = read(KUBERAY)["spec"]["rayClusterSpec"]["workerGroupSpecs"][place]
    assert group["minReplicas"] == 0
    assert group["labels"] == {"tier": group["groupName"]}
    pod = group["template"]["spec"]
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert pod["containers"][0]["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]
