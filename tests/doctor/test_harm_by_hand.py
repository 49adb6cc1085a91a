"""Printed repairs beside another team in the same namespace or on the same webhook: they leave that team alone.

In each of these cases, a repair once did harm. The tests run the repairs as `labkit doctor` prints them.
"""

import copy
import json

import pytest
from kubernetes.client import AdmissionregistrationV1Api, ApiException, AppsV1Api, CoreV1Api, RbacAuthorizationV1Api

from labkit.cli import doctor_repair
from labkit.connection import awaited
from labkit.course.faults.situation import new_role
from labkit.documents import SLEEP
from tests.commands import labkit

WEBHOOK = "pod-identity-webhook"
FOR_PODS = {
    "Effect": "Allow",
    "Principal": {"Service": "pods.eks.amazonaws.com"},
    "Action": ["sts:AssumeRole", "sts:TagSession"],
}
pytestmark = pytest.mark.kubectl


class Shop:
    """A namespace that two teams share: the doctor examines `cart`; `till` and `default` belong to the other team."""

    namespace = "shop"

    def __init__(self, lab, shell):
        self.lab, self.shell = lab, shell
        self.core, self.apps = CoreV1Api(lab.kubernetes), AppsV1Api(lab.kubernetes)
        self.webhooks = AdmissionregistrationV1Api(lab.kubernetes)
        self.iam, self.eks = lab.aws.client("iam"), lab.aws.client("eks")

    def role(self, name):
        """Make a role that a service account gets by IRSA or by an EKS Pod Identity association; return its ARN."""
        parameters = self.lab.parameters.model_copy(
            update={"namespace": self.namespace, "service_account": name, "role_name": f"shop-{name}"}
        )
        trust = new_role(parameters, self.lab.provider_arn)["AssumeRolePolicyDocument"]
        trust["Statement"].append(FOR_PODS)
        made = self.iam.create_role(RoleName=f"shop-{name}", AssumeRolePolicyDocument=json.dumps(trust))
        self.iam.attach_role_policy(RoleName=f"shop-{name}", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        return made["Role"]["Arn"]

    def account(self, name, role_arn=""):
        annotations = {"eks.amazonaws.com/role-arn": role_arn} if role_arn else {}
        metadata = {"name": name, "annotations": annotations}
        self.core.create_namespaced_service_account(self.namespace, {"metadata": metadata})

    def annotate_default(self, role_arn):
        """Annotate the service account `default`, once the cluster's controller has made it."""
        change = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": role_arn}}}
        awaited(
            lambda: [each.metadata.name for each in self.core.list_namespaced_service_account(self.namespace).items],
            lambda names: "default" in names,
            within=30,
            every=0.2,
        )
        self.core.patch_namespaced_service_account("default", self.namespace, change)

    def pod(self, name, account="", **metadata):
        """Make a pod, and wait until it runs."""
        spec = pod_spec(account)
        self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": name, **metadata}, "spec": spec})
        awaited(
            lambda: self.core.read_namespaced_pod(name, self.namespace).status.phase,
            lambda phase: phase == "Running",
            within=60,
            every=0.2,
        )

    def workload(self, kind, name, account="", *, replicas=0, labels=None, **container):
        labels = {"part": name, **(labels or {})}
        template = {"metadata": {"labels": labels}, "spec": pod_spec(account, **container)}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"part": name}}, "template": template}
        create = getattr(self.apps, f"create_namespaced_{kind}")
        create(self.namespace, {"metadata": {"name": name, "labels": labels}, "spec": spec})

    def register(self, change):
        registered = self.webhooks.read_mutating_webhook_configuration(WEBHOOK)
        document = self.lab.kubernetes.sanitize_for_serialization(registered)
        change(document["webhooks"])
        self.webhooks.replace_mutating_webhook_configuration(WEBHOOK, document)

    def registered(self):
        registration = self.webhooks.read_mutating_webhook_configuration(WEBHOOK)
        return self.lab.kubernetes.sanitize_for_serialization(registration)["webhooks"]

    def given(self, account):
        """The names of the variables that the webhook adds to a new pod of a service account."""
        pod = {"metadata": {"generateName": "new-"}, "spec": pod_spec(account)}
        made = self.core.create_namespaced_pod(self.namespace, pod, dry_run="All")
        return {variable.name for variable in made.spec.containers[0].env or []}

    def repaired(self, *options):
        """Run the printed repairs one after the other; return the findings' ids and the text of all repairs."""
        findings = json.loads(labkit("doctor", "-n", self.namespace, "-s", "cart", "--json", *options).stdout)[
            "findings"
        ]
        for finding in findings:
            if not doctor_repair.why_not_run(finding["repair"]):
                self.shell(finding["repair"])
        return [finding["id"] for finding in findings], "\n".join(finding["repair"] for finding in findings)


def pod_spec(account, **container):
    named = {"serviceAccountName": account} if account else {}
    return {**named, "containers": [{"name": "app", "image": "python", "command": SLEEP, **container}]}


@pytest.fixture
def shop(lab, shell):
    made = Shop(lab, shell)
    made.core.create_namespace({"metadata": {"name": "shop", "labels": {"team": "b"}}})
    registered = copy.deepcopy(made.registered())
    yield made
    made.register(lambda webhooks: webhooks.__setitem__(slice(None), registered))
    made.core.delete_namespace("shop")
    awaited(lambda: is_there(made.core, "shop"), lambda there: not there, within=60, every=0.2)
    for each in made.eks.list_pod_identity_associations(clusterName="blue")["associations"]:
        made.eks.delete_pod_identity_association(clusterName="blue", associationId=each["associationId"])
    for role in made.iam.list_roles()["Roles"]:
        if (name := role["RoleName"]).startswith("shop-"):
            made.iam.detach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
            made.iam.delete_role(RoleName=name)


def is_there(core, namespace):
    try:
        core.read_namespace(namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    return True


def test_the_repair_keeps_a_selector_that_keeps_a_pod_identity_role_from_others(shop):
    out = {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}
    shop.register(lambda webhooks: webhooks[0].update(namespaceSelector=out))
    shop.account("cart", shop.role("cart"))
    shop.account("till")
    shop.eks.create_pod_identity_association(
        clusterName="blue", namespace="shop", serviceAccount="till", roleArn=shop.role("till")
    )
    shop.pod("cart-1", "cart")
    ids, printed = shop.repaired()
    assert ids == ["pod-opted-out-of-webhook"]
    assert "shop/till" in printed
    assert not shop.given("till")
    assert shop.registered()[0]["namespaceSelector"] == out


def test_the_repair_leaves_a_pod_of_the_service_account_default_alone(shop):
    shop.account("cart", shop.role("cart"))
    shop.annotate_default(shop.role("default"))
    shop.pod("web-1")
    before = shop.core.read_namespaced_pod("web-1", "shop").metadata.uid
    ids, printed = shop.repaired("--pod", "web-1")
    assert ids == ["pod-uses-another-service-account"]
    leaves = "The doctor leaves the pod web-1 unchanged."
    assert f"{leaves} It runs as another service account, shop:default, perhaps on purpose." in printed
    assert shop.core.read_namespaced_pod("web-1", "shop").metadata.uid == before


def test_the_repair_leaves_a_workload_of_the_service_account_default_alone(shop):
    shop.account("cart", shop.role("cart"))
    shop.annotate_default(shop.role("default"))
    shop.workload("deployment", "orders")
    ids, _ = shop.repaired()
    assert ids == ["pod-missing"]
    assert shop.apps.read_namespaced_deployment("orders", "shop").spec.template.spec.service_account_name is None


def test_the_repair_does_not_patch_a_workload_that_only_shares_an_instance_label(shop):
    shop.account("cart", shop.role("cart"))
    shop.account("till")
    shop.workload("deployment", "redis", labels={"app.kubernetes.io/instance": "cart"})
    ids, printed = shop.repaired()
    assert ids == ["pod-missing"]
    assert "# Nothing is changed: nothing shows that deployment/redis should run as cart." in printed
    assert shop.apps.read_namespaced_deployment("redis", "shop").spec.template.spec.service_account_name is None


def test_the_repair_does_not_take_a_workloads_permissions_in_the_cluster(shop):
    shop.account("cart", shop.role("cart"))
    shop.workload("deployment", "cart")
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "shop"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    binding = {"metadata": {"name": "cart-edit"}, "roleRef": reference, "subjects": [subject]}
    RbacAuthorizationV1Api(shop.core.api_client).create_namespaced_role_binding("shop", binding)
    ids, printed = shop.repaired()
    assert ids == ["pod-missing"]
    assert "As cart, it would lose what rolebinding/cart-edit (ClusterRole edit) in shop allows." in printed
    assert shop.apps.read_namespaced_deployment("cart", "shop").spec.template.spec.service_account_name is None


def test_the_repair_keeps_a_config_map_that_a_replica_set_without_pods_uses(shop):
    shop.account("cart", shop.role("cart"))
    shop.account("till")
    settings = {"AWS_PROFILE": "prod", "GREETING": "hello"}
    shop.core.create_namespaced_config_map("shop", {"metadata": {"name": "settings"}, "data": settings})
    sources = [{"configMapRef": {"name": "settings"}}]
    shop.workload("replica_set", "till", "till", envFrom=sources)
    shop.workload("deployment", "cart", "cart", replicas=1, envFrom=sources)
    awaited(lambda: len(shop.core.list_namespaced_pod("shop").items), lambda pods: pods > 0, within=30, every=0.2)
    ids, printed = shop.repaired()
    assert "pod-aws-profile" in ids
    assert "replicaset/till" in printed
    assert shop.core.read_namespaced_config_map("settings", "shop").data == settings


def test_the_repair_adds_no_rule_to_another_teams_entry_in_the_registration(shop):
    theirs = [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]

    def beside(webhooks):
        webhooks[0]["rules"][0]["resources"] = ["configmaps"]
        webhooks.insert(0, {**copy.deepcopy(webhooks[0]), "name": "audit.team-b.example.com", "rules": theirs})

    shop.register(beside)
    shop.account("cart", shop.role("cart"))
    shop.pod("cart-1", "cart")
    ids, _ = shop.repaired()
    assert ids == ["webhook-not-asked-about-pod"]
    assert [each["resources"] for each in shop.registered()[0]["rules"]] == [["deployments"]]
    assert "AWS_ROLE_ARN" in shop.given("cart")


def test_events_of_a_pod_with_a_similar_name_are_neither_counted_nor_deleted(shop):
    shop.account("cart", shop.role("cart"))
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "cart", "uid": "1", "controller": True}
    shop.pod("cart-1", "cart", ownerReferences=[owner])
    theirs = {"kind": "Pod", "name": "cart-admin-7", "namespace": "shop"}
    for number in range(6):
        event = {"metadata": {"name": f"event-{number}"}, "involvedObject": theirs, "reason": "Killing", "count": 1}
        shop.core.create_namespaced_event("shop", event)
    ids, _ = shop.repaired()
    assert "pod-replaced-in-a-loop" not in ids
    kept = [
        each for each in shop.core.list_namespaced_event("shop").items if each.involved_object.name == theirs["name"]
    ]
    assert len(kept) == 6
