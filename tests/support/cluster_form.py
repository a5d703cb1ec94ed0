"""What may stand in a cluster file: Ray's own validator, and tables for what Ray hands on without looking at it.

The tables hold the keys that these files use and their nearest kin, not all there are: a key that is missing here is
looked up at the source and added. Sources: AWS's `RunInstances`, as boto3's `create_instances` takes it; Google's
Compute Engine REST reference v1, `instances.insert`; KubeRay's `ray-operator/apis/ray/v1/rayjob_types.go` and
`raycluster_types.go` of operator 1.6 (`docs/reference/api.md` there); Kubernetes' API reference v1, `PodTemplateSpec`.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any

from ray.autoscaler._private.util import prepare_config, validate_config

Table = Mapping[str, Any]
"""Allowed keys: with None anything may stand behind one, with a table an object, with a list of one table a list."""

FREE = None
PROVIDERS: Mapping[str, Table] = {
    "aws": dict.fromkeys(("type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips")),
    "gcp": dict.fromkeys(("type", "region", "availability_zone", "project_id", "use_internal_ips")),
    "local": dict.fromkeys(("type", "head_ip", "worker_ips")),
}
NODE_CONFIGS: Mapping[str, Table] = {
    "aws": {
        **dict.fromkeys(("InstanceType", "ImageId", "KeyName", "SubnetIds", "SecurityGroupIds", "EbsOptimized")),
        "InstanceMarketOptions": {
            "MarketType": FREE,
            "SpotOptions": dict.fromkeys(("MaxPrice", "SpotInstanceType", "InstanceInterruptionBehavior")),
        },
        "IamInstanceProfile": dict.fromkeys(("Arn", "Name")),
        "BlockDeviceMappings": [
            {
                "DeviceName": FREE,
                "Ebs": dict.fromkeys(
                    ("VolumeSize", "VolumeType", "Iops", "Throughput", "Encrypted", "DeleteOnTermination")
                ),
            }
        ],
    },
    "gcp": {
        "machineType": FREE,
        "disks": [
            {
                **dict.fromkeys(("boot", "autoDelete", "type")),
                "initializeParams": dict.fromkeys(("diskSizeGb", "sourceImage", "diskType")),
            }
        ],
        "guestAccelerators": [dict.fromkeys(("acceleratorType", "acceleratorCount"))],
        "metadata": {"items": [dict.fromkeys(("key", "value"))]},
        "serviceAccounts": [dict.fromkeys(("email", "scopes"))],
        "scheduling": dict.fromkeys(
            ("provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart", "preemptible")
        ),
    },
}
RESOURCES = dict.fromkeys(("CPU", "GPU", "memory", "object_store_memory"))
LABELS = {"tier": FREE}

AMOUNTS = dict.fromkeys(("cpu", "memory", "nvidia.com/gpu", "ephemeral-storage"))
CONTAINER: Table = {
    **dict.fromkeys(("name", "image", "imagePullPolicy", "command", "args")),
    "env": [{"name": FREE, "value": FREE, "valueFrom": {"secretKeyRef": dict.fromkeys(("name", "key"))}}],
    "resources": {"requests": AMOUNTS, "limits": AMOUNTS},
    "volumeMounts": [dict.fromkeys(("name", "mountPath", "readOnly", "subPath"))],
    "ports": [dict.fromkeys(("containerPort", "name"))],
}
POD: Table = {
    "metadata": {"labels": FREE, "annotations": FREE},
    "spec": {
        **dict.fromkeys(("serviceAccountName", "nodeSelector", "priorityClassName", "restartPolicy")),
        "containers": [CONTAINER],
        "tolerations": [dict.fromkeys(("key", "operator", "value", "effect"))],
        "volumes": [
            {
                "name": FREE,
                "emptyDir": dict.fromkeys(("medium", "sizeLimit")),
                "persistentVolumeClaim": dict.fromkeys(("claimName", "readOnly")),
            }
        ],
    },
}
GROUP: Table = {
    "rayStartParams": dict.fromkeys(("num-cpus", "num-gpus", "dashboard-host", "object-store-memory")),
    "labels": LABELS,
    "resources": RESOURCES,
    "template": POD,
}
RAY_JOB: Table = {
    "apiVersion": FREE,
    "kind": FREE,
    "metadata": dict.fromkeys(("name", "namespace", "labels")),
    "spec": {
        **dict.fromkeys(("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished")),
        **dict.fromkeys(("activeDeadlineSeconds", "runtimeEnvYAML", "submissionMode", "suspend", "jobId")),
        "rayClusterSpec": {
            **dict.fromkeys(("rayVersion", "enableInTreeAutoscaling")),
            "authOptions": {"mode": FREE},
            "autoscalerOptions": dict.fromkeys(("version", "idleTimeoutSeconds", "upscalingMode")),
            "headGroupSpec": GROUP,
            "workerGroupSpecs": [
                {**GROUP, **dict.fromkeys(("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"))}
            ],
        },
    },
}


def prepared(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cluster file as Ray completes it.

    Raises:
        Exception: Whatever Ray says of it.
        ValueError: If a key stands where Ray does not look that is not in the tables.
    """
    kind = cluster.get("provider", {}).get("type")
    refuse_unknown(cluster.get("provider", {}), PROVIDERS[kind], "provider")
    for name, node in cluster.get("available_node_types", {}).items():
        refuse_unknown(node.get("node_config", {}), NODE_CONFIGS[kind], f"{name}.node_config")
        refuse_unknown(node.get("resources", {}), RESOURCES, f"{name}.resources")
        refuse_unknown(node.get("labels", {}), LABELS, f"{name}.labels")
    completed: dict[str, Any] = prepare_config(copy.deepcopy(dict(cluster)))
    validate_config(completed)
    return completed


def refuse_unknown(given: Any, table: Any, where: str) -> None:
    """Refuse keys that a table does not have.

    Raises:
        ValueError: With the place, the key and those that are allowed.
    """
    if table is FREE:
        return
    if isinstance(table, list):
        if not isinstance(given, list):
            raise ValueError(f"{where} must be a list, not {given!r}")
        for place, each in enumerate(given):
            refuse_unknown(each, table[0], f"{where}[{place}]")
        return
    if not isinstance(given, dict):
        raise ValueError(f"{where} must be an object, not {given!r}")
    for key, value in given.items():
        if key not in table:
            raise ValueError(f"{where} has no {key!r}; it has {', '.join(sorted(table))}")
        refuse_unknown(value, table[key], f"{where}.{key}")


def misspelt(cluster: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a copy in which the last key of a dotted path has a letter too many; numbers are places in lists."""
    changed = copy.deepcopy(dict(cluster))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = functools.reduce(lambda inside, part: inside[part], parents, changed)
    place[f"{last}x"] = place.pop(last)
    return changed
