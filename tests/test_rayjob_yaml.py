"""The KubeRay manifest against the field names of its custom resource, as its API reference lists them."""

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

MANIFEST = yaml.safe_load((Path(__file__).parent.parent / "jobs" / "ice_prune.rayjob.yaml").read_text())
ANY = None  # of Kubernetes itself: not looked into
GROUP = {"rayStartParams": ANY, "template": {"metadata": ANY, "spec": {"containers": [ANY], "volumes": [ANY]}}}
FIELDS = {
    "apiVersion": ANY,
    "kind": ANY,
    "metadata": ANY,
    "spec": {
        **dict.fromkeys(["entrypoint", "runtimeEnvYAML", "submissionMode", "shutdownAfterJobFinishes", "suspend"]),
        **dict.fromkeys(["ttlSecondsAfterFinished", "backoffLimit", "activeDeadlineSeconds", "jobId", "metadata"]),
        **dict.fromkeys(["clusterSelector", "submitterConfig", "submitterPodTemplate", "deletionStrategy"]),
        **dict.fromkeys(["entrypointNumCpus", "entrypointNumGpus", "entrypointResources"]),
        "rayClusterSpec": {
            **dict.fromkeys(["rayVersion", "enableInTreeAutoscaling", "suspend", "managedBy"]),
            "authOptions": dict.fromkeys(["mode", "secretName", "enableK8sTokenAuth"]),
            "autoscalerOptions": dict.fromkeys(
                ["version", "idleTimeoutSeconds", "upscalingMode", "resources", "image", "imagePullPolicy", "env",
                 "envFrom", "volumeMounts", "securityContext"]
            ),
            "gcsFaultToleranceOptions": ANY,
            "headGroupSpec": {**GROUP, "serviceType": ANY, "headService": ANY, "enableIngress": ANY, "resources": ANY},
            "workerGroupSpecs": [
                {
                    **GROUP,
                    **dict.fromkeys(["groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"]),
                    **dict.fromkeys(["idleTimeoutSeconds", "scaleStrategy", "suspend", "labels", "resources"]),
                }
            ],
        },
    },
}  # fmt: skip


def unknown(content: Any, fields: Any, where: str = "") -> list[str]:
    """Names in the content that the resource does not have."""
    if fields is ANY:
        return []
    if isinstance(fields, list):
        return [name for each in content for name in unknown(each, fields[0], f"{where}[]")]
    own = [f"{where}.{name}" for name in content if name not in fields]
    nested = (unknown(value, fields[name], f"{where}.{name}") for name, value in content.items() if name in fields)
    return own + [name for found in nested for name in found]


def test_every_field_is_one_of_the_resource_s():
    assert unknown(MANIFEST, FIELDS) == []
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize("wrong", [{"entryPoint": "x"}, {"rayClusterSpec": {"authOption": {}}}])
def test_a_misspelt_field_would_be_found(wrong):
    assert unknown({**MANIFEST, "spec": {**MANIFEST["spec"], **wrong}}, FIELDS)


def test_authentication_is_on_and_it_scales_from_nothing():
    spec = MANIFEST["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["replicas"]) == (0, 0)
    assert workers["maxReplicas"] > 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["rayVersion"] == ray.__version__
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")


def test_all_pods_see_the_storage_and_have_the_same_image():
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    for pod in pods:
        (volume,) = pod["volumes"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert f"--storage {mount['mountPath']}/" in MANIFEST["spec"]["entrypoint"]


def test_the_entrypoint_s_options_are_the_job_s():
    from ice_ray.config.command_line import parse
    from ice_ray.config.run import RunConfig

    words = MANIFEST["spec"]["entrypoint"].split()
    assert words[:2] == ["python", "/home/ray/ice_ray/jobs/ice_prune.py"]
    assert parse(RunConfig, words[2:], "p").search.gpus == 0.5
