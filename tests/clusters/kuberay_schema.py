"""JSON schema of the parts of a RayJob that ``clusters/kuberay-rayjob.yaml`` may use; others are refused.

Written by hand after KubeRay's API reference (ray.io/v1, release 1.7) and Kubernetes' (core/v1), which name
the fields and their types. The custom resource definition is a megabyte, generated from the same types,
and in no package that a test could install. This is a subset, never more than a cluster accepts:

- RayJobSpec, RayClusterSpec, AuthOptions, AutoscalerOptions, HeadGroupSpec, WorkerGroupSpec: the fields of
  ours and most others, the enumerations and minima, and which are required.
- Pod templates: the fields that the file uses and a few near them, quantities as Kubernetes writes them.

Not in here: what the operator checks beyond the definition (a test looks at those rules one by one), and the
admission of a particular cluster (policies, quotas, node labels).
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
POSITIVE: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
FLAG: Schema = {"type": "boolean"}
# The names of objects: a DNS subdomain; of containers, volumes and groups: one label of it.
NAME: Schema = {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
LABEL: Schema = {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: Schema = {
    "type": ["integer", "string"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?|[eE][0-9]+)?$",
}


def record(required: str = "", /, **properties: Schema) -> Schema:
    """An object of these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(items: Schema, least: int = 0) -> Schema:
    """An array."""
    return {"type": "array", "items": items, "minItems": least}


def one_of(*values: str) -> Schema:
    """One of these texts."""
    return {"enum": list(values)}


METADATA = record("name", name=NAME, namespace=LABEL, labels=STRINGS, annotations=STRINGS)
RESOURCES = record(
    requests={"type": "object", "additionalProperties": QUANTITY},
    limits={"type": "object", "additionalProperties": QUANTITY},
)
KEY_OF = record("name key", name=NAME, key=STRING, optional=FLAG)
ENV = several(
    {
        "oneOf": [
            record("name value", name=STRING, value={"type": "string"}),
            record("name valueFrom", name=STRING, valueFrom=record("secretKeyRef", secretKeyRef=KEY_OF)),
        ]
    }
)
ENV_FROM = several(record("secretRef", secretRef=record("name", name=NAME, optional=FLAG)))
MOUNTS = several(record("name mountPath", name=LABEL, mountPath=STRING, readOnly=FLAG, subPath=STRING))
CAPABILITIES = record(add=several(STRING), drop=several(STRING))
SECCOMP = record("type", type=one_of("RuntimeDefault", "Unconfined", "Localhost"), localhostProfile=STRING)
CONTAINER = record(
    "name image",
    name=LABEL,
    image={"type": "string", "pattern": r"^[^\s:]+(/[^\s:]+)*:[^\s:]+$"},  # with a tag
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    command=several(STRING),
    args=several(STRING),
    env=ENV,
    envFrom=ENV_FROM,
    ports=several(
        record(
            "containerPort",
            containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
            name=LABEL | {"maxLength": 15},
        )
    ),
    resources=RESOURCES,
    securityContext=record(
        allowPrivilegeEscalation=FLAG,
        capabilities=CAPABILITIES,
        privileged=FLAG,
        readOnlyRootFilesystem=FLAG,
        runAsNonRoot=FLAG,
        runAsUser=COUNT,
    ),
    volumeMounts=MOUNTS,
)
POD = record(
    "containers",
    containers=several(CONTAINER, least=1),
    initContainers=several(CONTAINER),
    serviceAccountName=NAME,
    automountServiceAccountToken=FLAG,
    restartPolicy=one_of("Always", "OnFailure", "Never"),
    nodeSelector=STRINGS,
    tolerations=several(
        record(
            key=STRING,
            operator=one_of("Exists", "Equal"),
            value=STRING,
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        )
    ),
    imagePullSecrets=several(record("name", name=NAME)),
    securityContext=record(
        runAsNonRoot=FLAG, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT, seccompProfile=SECCOMP
    ),
    volumes=several(
        record(
            "name",
            name=LABEL,
            emptyDir=record(medium=one_of("", "Memory"), sizeLimit=QUANTITY),
            secret=record("secretName", secretName=NAME, optional=FLAG),
            persistentVolumeClaim=record("claimName", claimName=NAME, readOnly=FLAG),
        )
    ),
)
POD_TEMPLATE = record("spec", metadata=record(labels=STRINGS, annotations=STRINGS), spec=POD)

AUTH = record(mode=one_of("disabled", "token"), secretName=NAME, enableK8sTokenAuth=FLAG)
AUTOSCALER = record(
    idleTimeoutSeconds=COUNT,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    version=one_of("v1", "v2"),
    image=STRING,
    resources=RESOURCES,
    env=ENV,
    envFrom=ENV_FROM,
    volumeMounts=MOUNTS,
)
HEAD = record(
    "template",
    template=POD_TEMPLATE,
    rayStartParams=STRINGS,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
    enableIngress=FLAG,
    resources=STRINGS,
    labels=STRINGS,
)
WORKERS = record(
    "groupName minReplicas maxReplicas template",
    groupName=LABEL,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=POSITIVE,
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    rayStartParams=STRINGS,
    resources=STRINGS,
    labels=STRINGS,
    template=POD_TEMPLATE,
)
RAY_CLUSTER_SPEC = record(
    "headGroupSpec",
    rayVersion=STRING,
    authOptions=AUTH,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=STRINGS,
    headGroupSpec=HEAD,
    workerGroupSpecs=several(WORKERS),
    suspend=FLAG,
)
RAY_JOB_SPEC = record(
    "entrypoint rayClusterSpec",
    entrypoint=STRING,
    runtimeEnvYAML=STRING,
    jobId=STRING,
    metadata=STRINGS,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterPodTemplate=POD_TEMPLATE,
    submitterConfig=record(backoffLimit=COUNT),
    backoffLimit=COUNT,
    activeDeadlineSeconds=POSITIVE,
    preRunningDeadlineSeconds=POSITIVE,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    entrypointNumCpus={"type": "number", "minimum": 0},
    entrypointNumGpus={"type": "number", "minimum": 0},
    entrypointResources=STRING,
    rayClusterSpec=RAY_CLUSTER_SPEC,
)
RAY_JOB = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=METADATA,
    spec=RAY_JOB_SPEC,
)
SERVICE_ACCOUNT = record(
    "apiVersion kind metadata",
    apiVersion={"const": "v1"},
    kind={"const": "ServiceAccount"},
    metadata=METADATA,
    automountServiceAccountToken=FLAG,
)
