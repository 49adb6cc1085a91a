"""The shop of the capstone: its names, its brief, and what is missing or wrong at its beginning.

The draw differs by learner: the names, and three of the six mistakes.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from string import ascii_lowercase

from labkit import documents, targets
from labkit.connection import core_api
from labkit.course.exercises import exercise
from labkit.policy.written import PolicyDocument
from labkit.showing import is_live
from labkit.steps import bucket, oidc_provider
from labkit.steps.namespace import ensure_namespace
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

NAMESPACE = "shop"
KEPT_IN = "names"  # a ConfigMap in the namespace
DEMONSTRATION = 97  # the seed of stored notebooks
BRIEF = """\
The shop runs in the namespace `shop` of two clusters, and its data is in two accounts.

- `{cart}` and `{till}` run in the cluster `{blue}`, `{reports}` runs in the cluster `{green}`
- the bucket `{baskets}` is in the account {a}, the bucket `{ledger}` in the account {b}

These calls have to work:

- `{cart}`: write and read `{baskets}/baskets/*`
- `{till}`: write `{ledger}/sales/*`
- `{reports}`: list `{ledger}`, and read `{ledger}/sales/*`

AWS has to refuse every other call: of these three, of any other service account, namespace or cluster, and with a token
for any other audience. The team of `{left}` has left, so `{left}` gets nothing any more.

A pod that names only its service account makes the calls. How it gets its role is up to you. Begin the names of your
roles with `shop-`. Somebody began this: part of it is missing, and part of it is wrong.
"""


@dataclass(frozen=True)
class Shop:
    """The shop, in its two clusters and two accounts."""

    lab: Workspace
    suffix: str
    cart: str
    till: str
    reports: str
    left: str
    """The service account of the team that has left."""

    @classmethod
    def present(cls, lab: Workspace) -> "Shop | None":
        """Return the shop in this lab, or None."""
        kept = existing(partial(core_api(lab.kubernetes).read_namespaced_config_map, KEPT_IN, NAMESPACE))
        return cls(lab, **kept.data) if kept else None

    @classmethod
    def build(cls, lab: Workspace) -> "Shop":
        """Build a shop with new names and mistakes, in place of an earlier one."""
        if earlier := cls.present(lab):
            earlier.close()
        chance = random.SystemRandom() if is_live() else random.Random(DEMONSTRATION)  # noqa: S311 - hides nothing
        names = {
            "suffix": "".join(chance.choices(ascii_lowercase, k=4)),
            "cart": chance.choice(["cart", "basket", "trolley"]),
            "till": chance.choice(["till", "checkout", "payments"]),
            "reports": chance.choice(["reports", "insights", "figures"]),
            "left": chance.choice(["wishlist", "coupons", "reviews"]),
        }
        built = cls(lab, **names)
        built._begin()
        for mistake in chance.sample(MISTAKES, 3):
            mistake(built)
        # Last, so that a shop that was built halfway is built again.
        kept = {"metadata": {"name": KEPT_IN, "labels": lab.labels}, "data": names}
        core_api(lab.kubernetes).create_namespaced_config_map(NAMESPACE, kept)
        return built

    @property
    def baskets(self) -> str:
        """The bucket in the run's account."""
        return f"baskets-{self.suffix}"

    @property
    def ledger(self) -> str:
        """The bucket in the other account."""
        return f"ledger-{self.suffix}"

    @property
    def brief(self) -> str:
        """What the shop needs, on one page of Markdown."""
        names = {name: getattr(self, name) for name in ("cart", "till", "reports", "left", "baskets", "ledger")}
        clusters = {"blue": self.blue.parameters.cluster, "green": self.green.parameters.cluster}
        return BRIEF.format(a=self.lab.account_id, b=self.lab.connection.other_account, **clusters, **names)

    @cached_property
    def blue(self) -> Workspace:
        """The namespace in the run's cluster."""
        return self._place(self.lab)

    @cached_property
    def green(self) -> Workspace:
        """The namespace in the other cluster. The cluster is started if it's missing."""
        cluster = "green" if self.lab.parameters.cluster != "green" else "blue"
        parameters = self.lab.parameters.model_copy(update={"cluster": cluster})
        return self._place(Workspace(parameters, targets.target(parameters.target).up(parameters)))

    @cached_property
    def other_account(self) -> Workspace:
        """The account with the ledger, and the issuer of the run's cluster."""
        return self.blue.in_account(str(self.lab.connection.other_account))

    def close(self) -> None:
        """Delete the shop in both clusters and both accounts. The clusters stay."""
        for place in (self.blue, self.green):
            exercise.delete_associations(place)
            exercise.delete_namespace(place)
        for account, name in ((self.lab, self.baskets), (self.other_account, self.ledger)):
            for begins in (NAMESPACE, name):
                exercise.delete_in_aws(account, begins)
        for place in (self.green, self.other_account, self.green.in_account(self.other_account.account_id)):
            exercise.delete_provider(place)

    def role(self, account: str) -> Workspace:
        """Return the workspace of the role `shop-ACCOUNT` in the run's account, for this service account."""
        return self._place(self.lab, service_account=account, role_name=f"{NAMESPACE}-{account}")

    def _place(self, run: Workspace, **names: str) -> Workspace:
        return Workspace(run.parameters.model_copy(update={"namespace": NAMESPACE, **names}), run.connection)

    def _begin(self) -> None:
        """Build half of the shop: cart, the team that has left, and service accounts without a role."""
        for place in (self.blue, self.green):
            ensure_namespace(place)
        oidc_provider.ensure(self.lab)
        bucket.create(self.lab.aws, self.baskets)
        bucket.create(self.other_account.aws, self.ledger)
        for account in (self.cart, self.left):
            role = self.role(account)
            exercise.make_role(role)
            exercise.make_account(role, account)
            exercise.allow(role, "objects", (["s3:GetObject", "s3:PutObject"], f"{self._arn(self.baskets)}/baskets/*"))
        exercise.make_account(self.blue, self.till, {})
        exercise.make_account(self.green, self.reports, {})

    def _arn(self, name: str) -> str:
        return f"arn:{self.lab.connection.partition}:s3:::{name}"

    def _set_trust(self, account: str, policy: PolicyDocument) -> None:
        role = self.role(account)
        document = json.dumps(policy)
        role.aws.client("iam").update_assume_role_policy(RoleName=role.parameters.role_name, PolicyDocument=document)

    def _open_bucket(self, account: Workspace, name: str, action: str) -> None:
        statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": f"{self._arn(name)}/*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        account.aws.client("s3").put_bucket_policy(Bucket=name, Policy=document)


# The mistakes.


def _trust_without_a_subject(shop: Shop) -> None:
    policy = documents.trust_policy(shop.role(shop.cart).parameters, shop.lab.provider_arn)
    equals = policy["Statement"][0]["Condition"]["StringEquals"]
    policy["Statement"][0]["Condition"]["StringEquals"] = {k: v for k, v in equals.items() if k.endswith(":aud")}
    shop._set_trust(shop.cart, policy)


def _trust_of_another_namespace(shop: Shop) -> None:
    parameters = shop.role(shop.cart).parameters.model_copy(update={"namespace": "shop-staging"})
    shop._set_trust(shop.cart, documents.trust_policy(parameters, shop.lab.provider_arn))


def _permission_for_everything(shop: Shop) -> None:
    exercise.allow(shop.role(shop.cart), "more", ("s3:*", [shop._arn(shop.baskets), f"{shop._arn(shop.baskets)}/*"]))


def _till_with_the_role_of_cart(shop: Shop) -> None:
    annotations = {documents.ROLE_ANNOTATION: shop.role(shop.cart).role_arn}
    core_api(shop.lab.kubernetes).patch_namespaced_service_account(
        shop.till, NAMESPACE, {"metadata": {"annotations": annotations}}
    )
    policy = documents.trust_policy(shop.role(shop.cart).parameters, shop.lab.provider_arn)
    equals = policy["Statement"][0]["Condition"]["StringEquals"]
    subjects = [f"system:serviceaccount:{NAMESPACE}:{account}" for account in (shop.cart, shop.till)]
    policy["Statement"][0]["Condition"]["StringEquals"] = {
        key: subjects if key.endswith(":sub") else value for key, value in equals.items()
    }
    shop._set_trust(shop.cart, policy)


def _baskets_for_everybody(shop: Shop) -> None:
    shop._open_bucket(shop.lab, shop.baskets, "s3:GetObject")


def _ledger_for_everybody(shop: Shop) -> None:
    shop._open_bucket(shop.other_account, shop.ledger, "s3:PutObject")


MISTAKES: list[Callable[[Shop], None]] = [
    _trust_without_a_subject,
    _trust_of_another_namespace,
    _permission_for_everything,
    _till_with_the_role_of_cart,
    _baskets_for_everybody,
    _ledger_for_everybody,
]
