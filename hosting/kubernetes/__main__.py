"""Keyturn as a CronJob, for what one stack file declares: `pulumi up --stack prod`. Settings: settings.py and docs/hosting.md."""

import pulumi
import pulumi_kubernetes as kubernetes
from manifests import manifests
from settings import Settings

from providers.pulumi import settings

MAKES = {
    "Namespace": kubernetes.core.v1.Namespace,
    "ServiceAccount": kubernetes.core.v1.ServiceAccount,
    "ConfigMap": kubernetes.core.v1.ConfigMap,
    "PersistentVolumeClaim": kubernetes.core.v1.PersistentVolumeClaim,
    "NetworkPolicy": kubernetes.networking.v1.NetworkPolicy,
    "CronJob": kubernetes.batch.v1.CronJob,
}
KEEPS = ("Namespace", "PersistentVolumeClaim")
"""With either goes the audit trail."""

about = settings.read(Settings)
path, config = settings.stack(about)

made: list[pulumi.Resource] = []
for manifest in manifests(about, path, config):
    kind = manifest["kind"]
    # In their order: nothing before its namespace, and no pod before what it may reach is said.
    options = pulumi.ResourceOptions(protect=kind in KEEPS, depends_on=list(made))
    parts = {
        key: value
        for key, value in manifest.items()
        if key not in ("apiVersion", "kind", "automountServiceAccountToken")
    }
    if kind == "ServiceAccount":
        parts["automount_service_account_token"] = manifest["automountServiceAccountToken"]
    made.append(MAKES[kind](manifest["metadata"]["name"], opts=options, **parts))

pulumi.export("namespace", about.namespace)
pulumi.export("serviceAccount", f"system:serviceaccount:{about.namespace}:keyturn")
pulumi.export("sweepNow", f"kubectl -n {about.namespace} create job --from=cronjob/keyturn-sweep keyturn-sweep-now")
pulumi.export("variablesNotSet", [] if about.credentials else settings.warn_of_missing(config))
