"""The manifests of deploy/kubernetes, with what is one's own put in.

They are the one source: whoever applies them by kubectl gets the same objects. So what this program knows about a pod is
where in them a setting goes, and no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from settings import Settings

from providers.pulumi.settings import fail
from rotation import hosted
from rotation.config import Config, VaultConfig
from rotation.environ import FOLDER
from rotation.sections import KubernetesAuth

DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
FILES: Final = ("config.yaml", "network.yaml", "cronjob.yaml")
LEFT_OUT: Final = ("keyturn-metrics",)
"""A sweep that ends has no metrics to ask for."""
TOKEN: Final = "/var/run/secrets/keyturn/vault-token"  # noqa: S105 - where a token is, not one
_CREDENTIALS: Final = "/var/run/secrets/keyturn-credentials"
_METADATA: Final = "169.254.0.0/16"

Manifest = dict[str, Any]


def manifests(about: Settings, path: Path, config: Config) -> list[Manifest]:
    """The objects of one stack, in the order in which they are made.

    Parameters:
        path: the stack file, whose text goes into the ConfigMap as it is.
    """
    found = [each for name in FILES for each in yaml.safe_load_all((DEPLOY / name).read_text())]
    found = [each for each in found if each["metadata"]["name"] not in LEFT_OUT]
    _check(config)
    for each in found:
        _place(each["metadata"], about, config)
        match each["kind"]:
            case "Namespace":
                each["metadata"]["name"] = about.namespace
            case "ServiceAccount":
                each["metadata"]["annotations"] = _identity(about)
            case "ConfigMap":
                each["data"] = {name: (path.parent / name).read_text() for name in _files(path, config)}
            case "PersistentVolumeClaim":
                each["spec"]["resources"]["requests"]["storage"] = about.storage
                if about.storage_class:
                    each["spec"]["storageClassName"] = about.storage_class
            case "NetworkPolicy":
                _open(each["spec"], about, config)
            case "CronJob":
                each["spec"]["schedule"] = f"*/{about.sweep_every} * * * *"
                _pod(each["spec"]["jobTemplate"]["spec"]["template"], about, path, config)
    return found


def _check(config: Config) -> None:
    """Vault's token lies where it is projected to; the cluster's own is not mounted."""
    for name, store in config.stores.items():
        if isinstance(store, VaultConfig) and isinstance(store.auth, KubernetesAuth) and store.auth.token_file != TOKEN:
            fail(
                f"keyturn:stores.{name}.auth.tokenFile: is {store.auth.token_file}, and the pod has its token in {TOKEN}"
            )


def _place(metadata: Manifest, about: Settings, config: Config) -> None:
    if "namespace" in metadata:
        metadata["namespace"] = about.namespace
    ours = {"app.kubernetes.io/name": "keyturn", "keyturn/environment": config.environment}
    metadata["labels"] = {**metadata.get("labels", {}), **ours, **about.tags}


def _identity(about: Settings) -> dict[str, str]:
    """The annotations by which clouds know a service account (EKS user guide, "IAM roles for service accounts"; Microsoft Entra
    Workload ID).
    """
    found = {"eks.amazonaws.com/role-arn": about.aws_role, "azure.workload.identity/client-id": about.azure_client}
    return {name: text for name, text in found.items() if text}


def _files(path: Path, config: Config) -> list[str]:
    """The stack file, and what it refers to beside it. A ConfigMap has no folders."""
    found = [path.name]
    parts = [*config.stores.items(), *config.issuers.items()]
    for name, about in parts:
        for field in ("ca_bundle", "description"):
            given = getattr(about, field, None)
            if given is None or Path(given).is_absolute():
                continue
            if Path(given).name != given or not (path.parent / given).is_file():
                fail(f"{name}: {given} has to be a file beside the stack file, as a ConfigMap has no folders")
            found.append(given)
    return found


def _open(spec: Manifest, about: Settings, config: Config) -> None:
    """The ranges and ports of stores and issuers."""
    for rule in spec.get("egress", ()):
        if any("ipBlock" in peer for peer in rule["to"]):
            rule["to"] = [_range(cidr) for cidr in about.egress]
            rule["ports"] = [{"protocol": "TCP", "port": port} for port in hosted.ports(config)]


def _range(cidr: str) -> Manifest:
    return {"ipBlock": {"cidr": cidr} | ({"except": [_METADATA]} if cidr == "0.0.0.0/0" else {})}


def _pod(template: Manifest, about: Settings, path: Path, config: Config) -> None:
    labels = {**template["metadata"]["labels"], "keyturn/environment": config.environment}
    template["metadata"]["labels"] = labels | ({"azure.workload.identity/use": "true"} if about.azure_client else {})
    spec = template["spec"]
    (container,) = spec["containers"]
    container["image"] = about.image
    container["args"] = [
        f"--config=/etc/keyturn/{path.name}" if "--config" in arg else arg for arg in container["args"]
    ]
    for variable in container["env"]:
        variable["value"] = variable["value"].replace("prod.jsonl", f"{config.environment}.jsonl")
    container["env"] += [{"name": name, "value": text} for name, text in sorted(about.environment.items())]
    container["resources"]["limits"]["memory"] = about.memory
    for volume in spec["volumes"]:
        for source in volume.get("projected", {}).get("sources", ()):
            source["serviceAccountToken"]["audience"] = about.vault_audience
    if about.credentials:
        container["env"].append({"name": FOLDER, "value": _CREDENTIALS})
        container["volumeMounts"].append({"name": "credentials", "mountPath": _CREDENTIALS, "readOnly": True})
        # Read by the pod's own user, through its group.
        secret = {"secretName": about.credentials, "defaultMode": 0o440}
        spec["volumes"].append({"name": "credentials", "secret": secret})
