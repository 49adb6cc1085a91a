"""The documents that describe one run of a lab: its present state, its state before a fault, or a wanted state.

A fault only edits these documents. `live` reads them from a lab, and changes a lab to match them.
"""

import base64
import copy
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from labkit import documents
from labkit.course.faults import admission
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters
from labkit.simulator import object_selector

if TYPE_CHECKING:
    from labkit.connection import Connection

ROLE_ARN = documents.ROLE_ANNOTATION
WEBHOOK = "MutatingWebhookConfiguration pod-identity-webhook"
ANOTHER_ACCOUNT = "210987654321"

Document = dict[str, Any]


class Situation(BaseModel):
    """The documents that describe one run, such as its roles, policies and pods.

    The documents are plain JSON, so situations can be compared and stored.
    """

    parameters: Parameters
    issuer: str
    account_id: str
    partition: str = "aws"
    image: str

    providers: dict[str, Document] = Field(default_factory=dict)
    """The OIDC providers by ARN, with the fields `Url`, `ClientIDList`, `ThumbprintList` and `Tags`."""
    roles: dict[str, Document] = Field(default_factory=dict)
    """The roles by ARN, with the fields that `new_role` returns."""
    bucket_policy: Document | None = None
    associations: list[Document] = Field(default_factory=list)
    """The EKS Pod Identity associations of the service account."""
    identity_provider_configs: list[Document] = Field(default_factory=list)
    published: dict[str, Document] = Field(default_factory=dict)
    """HTTP answers that replace the issuer's public documents, by the document's name. Each has `status` and `body`."""
    refused: list[Document] = Field(default_factory=list)
    """Calls that IAM refuses: `operation`, `arguments` and the error's `code`. Only CloudTrail shows such calls."""

    objects: dict[str, Document] = Field(default_factory=dict)
    """The Kubernetes objects by kind and name. A pod is its applied manifest, without the webhook's additions."""
    admitted: dict[str, Document] = Field(default_factory=dict)
    """Each pod's spec after admission, by the pod's kind and name."""
    made_with: dict[str, str] | None = None
    """The annotations that the service account had when the pods were created. None if they haven't changed since."""
    fails_to_start: bool = False
    """Whether a pod fails to start."""
    registration: Document = Field(default_factory=dict)
    """A copy of the webhook's working registration. Faults change only the registration in `objects`."""

    @classmethod
    def wanted(cls, parameters: Parameters, connection: "Connection", webhook: Document) -> "Situation":
        """Return the documents of a healthy lab. `webhook` is the registration of its pod identity webhook."""
        role_arn = connection.role_arn(parameters.role_name)
        provider = documents.provider(parameters, connection.issuer)
        made = cls(
            parameters=parameters,
            issuer=connection.issuer,
            account_id=connection.account_id,
            partition=connection.partition,
            image=parameters.image or connection.image,
            providers={connection.provider_arn: {**provider, "ThumbprintList": [], "Tags": parameters.tags}},
            roles={role_arn: new_role(parameters, connection.provider_arn)},
            registration=admission.with_defaults(copy.deepcopy(webhook)),
        )
        namespace = {"metadata": {"name": parameters.namespace}}
        made.add({"apiVersion": "v1", "kind": "Namespace", **namespace})
        made.add(dict(documents.service_account(parameters, role_arn)))
        made.add(webhook)
        made.add(dict(documents.pod(parameters, connection.image)))
        return made.settled()

    # The documents that faults edit. For a missing document, a property returns an empty one. A fault can edit it, but
    # it isn't part of the situation, so the edit changes nothing.

    @property
    def provider_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:oidc-provider/{self.provider_name}"

    @property
    def provider_name(self) -> str:
        """The issuer's URL without its scheme. Condition keys begin with this name."""
        return self.issuer.removeprefix("https://")

    @property
    def issuer_id(self) -> str:
        """The last part of the issuer's URL. On EKS, it's 32 hex digits."""
        return self.issuer.rpartition("/")[2]

    @property
    def role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:role/{self.parameters.role_name}"

    @property
    def provider(self) -> Document:
        return self.providers.get(self.provider_arn, {})

    @property
    def role(self) -> Document:
        return self.roles.get(self.role_arn, {})

    @property
    def statement(self) -> Document:
        """The trust policy's first statement with an OIDC provider as its principal."""
        statements = self.role.get("AssumeRolePolicyDocument", {}).get("Statement") or []
        return next((statement for statement in statements if "Federated" in statement["Principal"]), {})

    @property
    def annotations(self) -> dict[str, str]:
        """A copy of the service account's annotations. Change them with `annotate`."""
        return {**(self.service_account["metadata"].get("annotations") or {})}

    @property
    def service_account(self) -> Document:
        """The service account's manifest."""
        return self.objects.get(self.service_account_key, {"metadata": {}})

    @property
    def service_account_key(self) -> str:
        return f"ServiceAccount {self.parameters.namespace}/{self.parameters.service_account}"

    @property
    def pod_keys(self) -> list[str]:
        return [key for key in self.objects if key.startswith("Pod ")]

    @property
    def pod(self) -> Document:
        """The first pod, else the first Deployment's template, else an empty pod that isn't part of the situation."""
        empty = {"metadata": {}, "spec": {"containers": [{"name": ""}]}}
        templates = [obj["spec"]["template"] for key, obj in self.objects.items() if key.startswith("Deployment ")]
        return next((self.objects[key] for key in self.pod_keys), next(iter(templates), empty))

    @property
    def container(self) -> Document:
        """The pod's first container."""
        containers: list[Document] = self.pod["spec"]["containers"]
        return containers[0]

    @property
    def webhook(self) -> Document:
        """The registration of the pod identity webhook."""
        webhooks: list[Document] = self.objects.get(WEBHOOK, {"webhooks": [{"clientConfig": {}}]})["webhooks"]
        return webhooks[0]

    # The edits that faults make.

    def require(self, claim: str, value: object, *, operator: str = "StringEquals") -> None:
        """Replace the trust policy's conditions on a claim, such as `sub`, with a condition that requires `value`.

        If `value` is None, only remove the conditions.
        """
        blocks = self.statement.get("Condition") or {}
        issuers = [key.rpartition(":")[0] for block in blocks.values() for key in block]
        condition = {
            name: {key: values for key, values in block.items() if not key.endswith(f":{claim}")}
            for name, block in blocks.items()
        }
        if value is not None:
            condition.setdefault(operator, {})[f"{[*issuers, self.provider_name][0]}:{claim}"] = value
        self.statement["Condition"] = {name: block for name, block in condition.items() if block}

    def trust(self, principal: str, issuer: str) -> None:
        """Set the trust policy's principal to this OIDC provider, and use this issuer in the condition keys."""
        blocks = self.statement.get("Condition") or {}
        self.statement["Principal"] = {"Federated": principal}
        self.statement["Condition"] = {
            operator: {f"{issuer}:{key.rpartition(':')[2]}": values for key, values in block.items()}
            for operator, block in blocks.items()
        }

    def annotate(self, annotations: dict[str, str]) -> None:
        """Replace the service account's annotations with `annotations`."""
        metadata = self.service_account["metadata"]
        metadata.pop("annotations", None)
        if annotations:
            metadata["annotations"] = annotations

    def set_variable(self, name: str, value: str) -> None:
        """Set an environment variable of the first container."""
        container = self.container
        others = [variable for variable in container.get("env") or [] if variable["name"] != name]
        container["env"] = [*others, {"name": name, "value": value}]

    def set_identity(self, *, role_arn: str | None = None, file: str | None = None) -> None:
        """Set the first container's variables for the role's ARN and the token's file. None removes a variable."""
        given = {"AWS_ROLE_ARN": role_arn, "AWS_WEB_IDENTITY_TOKEN_FILE": file}
        self.container["env"] = [each for each in self.container.get("env") or [] if each["name"] not in given]
        for name, value in given.items():
            if value is not None:
                self.set_variable(name, value)

    def mount(self, name: str, source: Document, path: str) -> None:
        """Add or replace the pod's volume `name`, and mount this volume into the first container at `path`."""
        spec, container = self.pod["spec"], self.container
        volumes = [volume for volume in spec.get("volumes") or [] if volume["name"] != name]
        spec["volumes"] = admission.volumes_with_defaults([*volumes, {"name": name, **source}])
        mounts = [mount for mount in container.get("volumeMounts") or [] if mount["name"] != name]
        container["volumeMounts"] = [*mounts, {"name": name, "mountPath": path}]

    def add(self, manifest: Document) -> None:
        """Add or replace a Kubernetes object, with the API server's defaults."""
        self.objects[key_of(manifest)] = admission.with_defaults(manifest)

    def add_config_map(self, name: str, data: dict[str, str]) -> None:
        """Add or replace a ConfigMap that carries the run's labels."""
        metadata = {"name": name, "namespace": self.parameters.namespace, "labels": self.parameters.labels}
        self.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def add_secret(self, name: str, texts: dict[str, str]) -> None:
        """Add or replace a Secret that carries the run's labels."""
        metadata = {"name": name, "namespace": self.parameters.namespace, "labels": self.parameters.labels}
        data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        self.add({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data})

    # Facts that follow from the documents.

    def is_as(self, other: "Situation") -> bool:
        """Return whether both situations are equal, except for the field `refused`."""
        return self.model_copy(update={"refused": []}) == other.model_copy(update={"refused": []})

    @property
    def accounts(self) -> set[str]:
        """The ids of the run's own account, and of other accounts that contain the run's providers or roles."""
        return {Arn.parse(arn).account for arn in (*self.providers, *self.roles)} | {self.account_id}

    def settled(self) -> "Situation":
        """Return a copy of the situation with a new `admitted`: the spec that each pod has after admission."""
        made = self.model_copy()
        made.admitted = {key: made.admission_of(made.objects[key]) for key in made.pod_keys}
        return made

    def admission_of(self, pod: Document) -> Document:
        """Return a pod's spec after admission, with the webhook's additions if the webhook changes the pod."""
        annotations: dict[str, str] = {}
        if pod["spec"].get("serviceAccountName") == self.parameters.service_account and self._is_selected(pod):
            if self.made_with is not None:
                annotations = self.made_with
            elif self.webhook_is_called:
                annotations = self.annotations
        return admission.admitted(pod, annotations, self.parameters.region)

    @property
    def webhook_is_called(self) -> bool:
        """Whether the webhook's registration lets the API server reach the webhook."""
        serving = (self.registration.get("webhooks") or [{}])[0].get("clientConfig")
        return WEBHOOK in self.objects and self.webhook["clientConfig"] == serving

    def _is_selected(self, pod: Document) -> bool:
        namespace = self.objects.get(f"Namespace {self.parameters.namespace}", {"metadata": {}})
        subjects = {"namespaceSelector": namespace, "objectSelector": pod}
        return all(
            object_selector(self.webhook.get(selector))(subject["metadata"].get("labels") or {})
            for selector, subject in subjects.items()
        )


def new_role(parameters: Parameters, provider_arn: str) -> Document:
    """Return the role that the run has in a healthy lab."""
    return {
        "Description": "",
        "AssumeRolePolicyDocument": documents.trust_policy(parameters, provider_arn),
        "MaxSessionDuration": 3600,
        "PermissionsBoundary": "",
        "Attached": [parameters.policy_arn],
        "Inline": {},
        "Tags": parameters.tags,
    }


def key_of(manifest: Document) -> str:
    """Return the key of a Kubernetes object: `Pod NAMESPACE/NAME`, or `Namespace NAME`."""
    metadata = manifest["metadata"]
    namespace = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{manifest['kind']} {namespace}{metadata['name']}"
