"""The capstone: three designs pass, and each wrong one fails at the call that shows why.

`make lessons` tries each design and each wrong one alone. `make test` tries one design, and the wrong ones together.
"""

import json
import os
from collections.abc import Callable

import pytest
from IPython.core.formatters import DisplayFormatter
from kubernetes.client import CoreV1Api

from labkit.course.capstone import shop as shops
from labkit.course.exercises import exercise
from labkit.errors import LabError

ALL = bool(os.environ.get("LABKIT_LESSONS"))
AWS = "sts.amazonaws.com"
SECURE = "aws:SecureTransport"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("progress") / "progress.jsonl"


@pytest.fixture(scope="module")
def capstone(lab):
    made = lab.capstone(again=True)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def learner(kept, monkeypatch):
    monkeypatch.setenv("LABKIT_PROGRESS", str(kept))


def wrong(check):
    return {row.what: row.found for row in check.rows if not row.right}


# Designs.


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]})


def trust(place, account, operator="StringEquals", subject="", *, provider=""):
    """A statement that admits a service account of the cluster."""
    issuer = place.issuer.removeprefix("https://")
    subject = subject or f"system:serviceaccount:shop:{account}"
    condition = {"StringEquals": {f"{issuer}:aud": AWS}}
    condition.setdefault(operator, {})[f"{issuer}:sub"] = subject
    action = "sts:AssumeRoleWithWebIdentity"
    return {"Principal": {"Federated": provider or place.provider_arn}, "Action": action, "Condition": condition}


def for_pods(_place, _account):
    return {"Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}


def role(account, name, trusted, *permissions):
    """Create the role, or replace its policies. Return its ARN."""
    iam = account.aws.client("iam")
    for each in iam.list_roles()["Roles"]:
        if each["RoleName"] == name:
            for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
                iam.delete_role_policy(RoleName=name, PolicyName=inline)
            iam.delete_role(RoleName=name)
    made = iam.create_role(RoleName=name, Path="/shop/", AssumeRolePolicyDocument=policy(trusted))["Role"]["Arn"]
    if permissions:
        iam.put_role_policy(RoleName=name, PolicyName="calls", PolicyDocument=policy(*permissions))
    return made


def register(account, place):
    iam = account.aws.client("iam")
    if not any(place.issuer.removeprefix("https://") in each["Arn"] for each in providers(iam)):
        iam.create_open_id_connect_provider(Url=place.issuer, ClientIDList=[AWS])


def providers(iam):
    return iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]


def annotate(place, account, arn):
    annotations = {"eks.amazonaws.com/role-arn": arn}
    body = {"metadata": {"annotations": annotations}}
    CoreV1Api(place.kubernetes).patch_namespaced_service_account(account, "shop", body)


def tidy(shop):
    """End what the team that has left may do, and take back what is open to everybody."""
    role(shop.lab, f"shop-{shop.left}", for_pods(None, None))
    CoreV1Api(shop.lab.kubernetes).delete_namespaced_service_account(shop.left, "shop")
    CoreV1Api(shop.lab.kubernetes).create_namespaced_service_account("shop", {"metadata": {"name": shop.left}})
    shop.lab.aws.client("iam").delete_role(RoleName=f"shop-{shop.left}")
    exercise.delete_in_aws(shop.other_account, "shop-old")
    shop.lab.aws.client("s3").delete_bucket_policy(Bucket=shop.baskets)
    shop.other_account.aws.client("s3").delete_bucket_policy(Bucket=shop.ledger)


def calls_of(shop):
    """The permissions of cart, till and reports."""
    baskets, ledger = f"arn:aws:s3:::{shop.baskets}", f"arn:aws:s3:::{shop.ledger}"
    return {
        "cart": [{"Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"{baskets}/baskets/*"}],
        "till": [{"Action": "s3:PutObject", "Resource": f"{ledger}/sales/*"}],
        "reports": [
            {"Action": "s3:ListBucket", "Resource": ledger},
            {"Action": "s3:GetObject", "Resource": f"{ledger}/sales/*"},
        ],
    }


def share_the_ledger(shop, till, reports, *more):
    calls = calls_of(shop)
    statements = [each | {"Principal": {"AWS": till}} for each in calls["till"]]
    statements += [each | {"Principal": {"AWS": reports}} for each in calls["reports"]]
    shop.other_account.aws.client("s3").put_bucket_policy(Bucket=shop.ledger, Policy=policy(*statements, *more))


def irsa_and_a_bucket_policy(shop):
    tidy(shop)
    register(shop.lab, shop.green)
    calls, arns = calls_of(shop), {}
    for name, place in (("cart", shop.blue), ("till", shop.blue), ("reports", shop.green)):
        account = getattr(shop, name)
        arns[name] = role(shop.lab, f"shop-{account}", trust(place, account), *calls[name])
        annotate(place, account, arns[name])
    share_the_ledger(shop, arns["till"], arns["reports"])
    return arns


def pod_identity(shop):
    tidy(shop)
    calls, arns = calls_of(shop), {}
    for name, place in (("cart", shop.blue), ("till", shop.blue), ("reports", shop.green)):
        account = getattr(shop, name)
        arns[name] = role(shop.lab, f"shop-{account}", for_pods(place, account), *calls[name])
        annotate(place, account, None)
        whose = {"clusterName": place.parameters.cluster, "namespace": "shop", "serviceAccount": account}
        place.aws.client("eks").create_pod_identity_association(**whose, roleArn=arns[name])
    share_the_ledger(shop, arns["till"], arns["reports"])


def roles_in_the_account_of_the_ledger(shop):
    tidy(shop)
    calls, there = calls_of(shop), shop.other_account
    annotate(shop.blue, shop.cart, role(shop.lab, f"shop-{shop.cart}", trust(shop.blue, shop.cart), *calls["cart"]))
    for name, place in (("till", shop.blue), ("reports", shop.green)):
        account = getattr(shop, name)
        register(there, place)
        issuer = place.issuer.removeprefix("https://")
        provider = f"arn:aws:iam::{there.account_id}:oidc-provider/{issuer}"
        trusted = trust(place, account, provider=provider)
        annotate(place, account, role(there, f"shop-{account}", trusted, *calls[name]))


DESIGNS = [irsa_and_a_bucket_policy, pod_identity, roles_in_the_account_of_the_ledger]


@pytest.mark.parametrize("design", DESIGNS if ALL else DESIGNS[:1])
def test_a_design_that_does_what_the_brief_says_passes(lab, design, kept):
    capstone = lab.capstone(again=True)
    begun = capstone.check()
    assert len(wrong(begun)) >= 5, "the shop begins half built and half wrong"
    assert begun.title == "the shop, 0 of 100 points"
    design(capstone.shop)
    lab.diagnose()
    check = capstone.check()
    assert wrong(check) == {} and len(check.rows) >= 25
    assert check.title == "the shop, 90 of 100 points (the doctor cost 10)"
    assert '"what": "capstone", "id": "97-capstone", "right": true' in kept.read_text()


# Wrong designs: what is wrong, and the calls that then come out wrong. `{cart}` is the service account's name.


def trusts(shop, account, *statements):
    iam = shop.lab.aws.client("iam")
    iam.update_assume_role_policy(RoleName=f"shop-{account}", PolicyDocument=policy(*statements))


def open_to_lookalikes(shop, arns):
    trusts(shop, shop.cart, trust(shop.blue, shop.cart, "StringLike", f"system:serviceaccount:shop:{shop.cart[0]}*"))


def open_to_each_namespace(shop, arns):
    trusts(shop, shop.till, trust(shop.blue, shop.till, "StringLike", f"system:serviceaccount:*:{shop.till}"))


def open_to_the_other_cluster(shop, arns):
    trusts(shop, shop.reports, trust(shop.green, shop.reports), trust(shop.blue, shop.reports))


def open_to_another_audience(shop, arns):
    iam, statement = shop.lab.aws.client("iam"), trust(shop.green, shop.reports)
    del statement["Condition"]["StringEquals"][f"{shop.green.issuer.removeprefix('https://')}:aud"]
    trusts(shop, shop.reports, statement)
    iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=shop.green.provider_arn, ClientID="vault")


def permit(shop, account, *statements, name="more"):
    iam = shop.lab.aws.client("iam")
    iam.put_role_policy(RoleName=f"shop-{account}", PolicyName=name, PolicyDocument=policy(*statements))


def cart_may_do_everything(shop, arns):
    arn = f"arn:aws:s3:::{shop.baskets}"
    permit(shop, shop.cart, {"Action": "s3:*", "Resource": [arn, f"{arn}/*"]})


def till_sees_the_baskets(shop, arns):
    permit(shop, shop.till, {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{shop.baskets}/*"})


def reports_may_write(shop, arns):
    permit(shop, shop.reports, {"Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{shop.ledger}/*"}, name="write")
    more = {
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{shop.ledger}/*",
        "Principal": {"AWS": arns["reports"]},
    }
    share_the_ledger(shop, arns["till"], arns["reports"], more)


def the_team_that_has_left_is_still_there(shop, arns):
    calls = calls_of(shop)["cart"]
    annotate(shop.blue, shop.left, role(shop.lab, f"shop-{shop.left}", trust(shop.blue, shop.left), *calls))


def only_the_annotation_of_the_team_that_has_left_is_gone(shop, arns):
    role(shop.lab, f"shop-{shop.left}", trust(shop.blue, shop.left), *calls_of(shop)["cart"])


def the_other_account_admits_the_team_that_has_left(shop, arns):
    register(shop.other_account, shop.blue)
    issuer = shop.blue.issuer.removeprefix("https://")
    provider = f"arn:aws:iam::{shop.other_account.account_id}:oidc-provider/{issuer}"
    role(shop.other_account, "shop-old", trust(shop.blue, shop.left, provider=provider))


def default_has_a_role(shop, arns):
    calls = calls_of(shop)["cart"]
    annotate(shop.blue, "default", role(shop.lab, "shop-default", trust(shop.blue, "default"), *calls))


def reports_may_become_till(shop, arns):
    reports = {"Principal": {"AWS": arns["reports"]}, "Action": "sts:AssumeRole"}
    trusts(shop, shop.till, trust(shop.blue, shop.till), reports)
    permit(shop, shop.reports, {"Action": "sts:AssumeRole", "Resource": arns["till"]})


def an_instance_may_become_cart(shop, arns):
    instances = {"Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trusts(shop, shop.cart, trust(shop.blue, shop.cart), instances)


def till_admits_pod_identity_without_need(shop, arns):
    trusts(shop, shop.till, trust(shop.blue, shop.till), for_pods(None, None))


def a_stranger_has_an_association(shop, arns):
    trusts(shop, shop.cart, trust(shop.blue, shop.cart), for_pods(None, None))
    whose = {"clusterName": shop.blue.parameters.cluster, "namespace": "shop", "serviceAccount": "stranger"}
    shop.blue.aws.client("eks").create_pod_identity_association(**whose, roleArn=arns["cart"])


def a_stranger_is_named(shop, arns):
    subjects = [f"system:serviceaccount:{name}" for name in (f"shop:{shop.reports}", "back-office:stranger")]
    trusts(shop, shop.reports, trust(shop.green, shop.reports, subject=subjects))


def reports_may_write_elsewhere(shop, arns):
    permit(shop, shop.reports, {"Action": "s3:PutObject", "Resource": "arn:aws:s3:::shop-archive/*"})


def till_may_write_another_prefix(shop, arns):
    resource = f"arn:aws:s3:::{shop.ledger}/archive/*"
    permit(shop, shop.till, {"Action": "s3:Put*", "Resource": resource, "Condition": {"Bool": {SECURE: "true"}}})


def open_ledger(shop, arns, *more):
    share_the_ledger(shop, arns["till"], arns["reports"], *more)


def the_ledger_is_open_to_another_account(shop, arns):
    resource, them = f"arn:aws:s3:::{shop.ledger}/*", {"AWS": "arn:aws:iam::210987654321:root"}
    open_ledger(shop, arns, {"Action": "s3:GetObject", "Resource": resource, "Principal": them})


def the_policy_of_the_baskets_may_be_changed_by_cart(shop, arns):
    statement = {"Action": "s3:Put*", "Resource": f"arn:aws:s3:::{shop.baskets}", "Principal": {"AWS": arns["cart"]}}
    shop.lab.aws.client("s3").put_bucket_policy(Bucket=shop.baskets, Policy=policy(statement))


def the_ledger_is_open_from_a_date_on(shop, arns):
    resource, since = f"arn:aws:s3:::{shop.ledger}/*", {"aws:CurrentTime": "2020-01-01T00:00:00Z"}
    condition = {"DateGreaterThan": since}
    open_ledger(shop, arns, {"Action": "s3:Get*", "Resource": resource, "Principal": "*", "Condition": condition})


def whoever_knows_a_word_may_become_cart(shop, arns):
    condition = {"StringEquals": {"sts:ExternalId": "shop"}}
    anybody = {"Principal": {"AWS": "*"}, "Action": "sts:AssumeRole", "Condition": condition}
    trusts(shop, shop.cart, trust(shop.blue, shop.cart), anybody)


ADMITS, ALLOWS = (
    "the role of {}, for others that the role admits",
    "the role of {}, for other calls that its policies allow",
)
LEFT = "{left} in blue: AssumeRoleWithWebIdentity of any role of the shop"
OPENS = "the bucket {}, for whatever else its policy allows"
WRONG: dict[Callable, tuple[str, ...]] = {
    open_to_lookalikes: (
        "the role of {cart}, with a token of a new service account like {cart}",
        ADMITS.format("{cart}"),
    ),
    open_to_each_namespace: ("the role of {till}, with a token of {till} in a new namespace", ADMITS.format("{till}")),
    open_to_the_other_cluster: (
        "the role of {reports}, with a token of {reports} in the other cluster",
        ADMITS.format("{reports}"),
    ),
    open_to_another_audience: ("the role of {reports}, with a token for another audience",),
    cart_may_do_everything: (
        "{cart} in blue: DeleteObject {baskets}/baskets",
        "{cart} in blue: PutObject {baskets}/other",
        "{cart} in blue: GetObject {baskets}/other",
        "{cart} in blue: ListObjects {baskets}",
        ALLOWS.format("{cart}"),
    ),
    till_sees_the_baskets: ("{till} in blue: GetObject {baskets}/baskets", ALLOWS.format("{till}")),
    reports_may_write: ("{reports} in green: PutObject {ledger}/sales", ALLOWS.format("{reports}")),
    the_team_that_has_left_is_still_there: (
        "{left} in blue: PutObject {baskets}/baskets",
        "{left} in blue: GetObject {baskets}/baskets",
        LEFT,
    ),
    only_the_annotation_of_the_team_that_has_left_is_gone: (LEFT,),
    the_other_account_admits_the_team_that_has_left: (LEFT,),
    default_has_a_role: ("default in blue: GetObject {baskets}/baskets",),
    reports_may_become_till: (
        "{reports} in green: AssumeRole of {till}'s role",
        ADMITS.format("{till}"),
        ALLOWS.format("{reports}"),
    ),
    an_instance_may_become_cart: (ADMITS.format("{cart}"),),
    till_admits_pod_identity_without_need: (ADMITS.format("{till}"),),
    a_stranger_has_an_association: (ADMITS.format("{cart}"),),
    a_stranger_is_named: (ADMITS.format("{reports}"),),
    reports_may_write_elsewhere: (ALLOWS.format("{reports}"),),
    till_may_write_another_prefix: (ALLOWS.format("{till}"),),
    the_ledger_is_open_to_another_account: (OPENS.format("{ledger}"),),
    the_policy_of_the_baskets_may_be_changed_by_cart: (OPENS.format("{baskets}"),),
    the_ledger_is_open_from_a_date_on: (OPENS.format("{ledger}"),),
    whoever_knows_a_word_may_become_cart: (ADMITS.format("{cart}"),),
}
# At most one change of each role's trust policy at a time.
TOGETHER = [
    [
        open_to_lookalikes,
        open_to_each_namespace,
        open_to_the_other_cluster,
        cart_may_do_everything,
        the_team_that_has_left_is_still_there,
    ],
    [
        open_to_another_audience,
        till_sees_the_baskets,
        reports_may_become_till,
        reports_may_write,
        default_has_a_role,
        a_stranger_has_an_association,
    ],
    [
        an_instance_may_become_cart,
        till_admits_pod_identity_without_need,
        a_stranger_is_named,
        reports_may_write_elsewhere,
        till_may_write_another_prefix,
        the_ledger_is_open_to_another_account,
        the_policy_of_the_baskets_may_be_changed_by_cart,
    ],
    [
        the_ledger_is_open_from_a_date_on,
        whoever_knows_a_word_may_become_cart,
        only_the_annotation_of_the_team_that_has_left_is_gone,
    ],
    [the_other_account_admits_the_team_that_has_left],
]


@pytest.mark.parametrize("mistakes", [[each] for each in WRONG] if ALL else TOGETHER)
def test_a_wrong_design_fails_at_the_call_that_shows_why(lab, capstone, mistakes):
    arns = irsa_and_a_bucket_policy(capstone.shop)
    for mistake in mistakes:
        mistake(capstone.shop, arns)
    names = {name: getattr(capstone.shop, name) for name in ("cart", "till", "reports", "left", "baskets", "ledger")}
    expected = {each.format(**names) for mistake in mistakes for each in WRONG[mistake]}
    check = capstone.check()
    assert wrong(check).keys() == expected
    complete = 4 - len({_part(each, names) for each in expected})
    assert check.title == f"the shop, {25 * complete} of 100 points"
    annotate(capstone.shop.blue, "default", None)
    exercise.delete_associations(capstone.shop.blue)


def _part(what, names):
    """The part of the shop that a call is about."""
    places = (("cart", "blue"), ("till", "blue"), ("reports", "green"))
    begins = {name: (f"{names[name]} in {where}:", f"the role of {names[name]},") for name, where in places}
    return next((name for name in begins if what.startswith(begins[name])), "others")


OF_BUCKETS = (shops._baskets_for_everybody, shops._ledger_for_everybody)


@pytest.mark.parametrize("mistake", shops.MISTAKES if ALL else [shops._till_with_the_role_of_cart])
def test_each_mistake_of_the_beginning_costs_its_part(lab, capstone, mistake):
    irsa_and_a_bucket_policy(capstone.shop)
    mistake(capstone.shop)
    found = wrong(capstone.check())
    names = {name: getattr(capstone.shop, name) for name in ("cart", "till", "reports")}
    assert ("others" if mistake in OF_BUCKETS else "cart") in {_part(each, names) for each in found}
    annotate(capstone.shop.blue, capstone.shop.till, None)


def test_every_wrong_design_is_tried_once():
    assert sorted(each.__name__ for each in WRONG) == sorted(each.__name__ for some in TOGETHER for each in some)
    assert len(WRONG) == 22


def test_the_mistakes_and_the_names_differ_by_learner(monkeypatch, lab):
    monkeypatch.setenv("LABKIT_LIVE", "1")
    monkeypatch.setattr(shops.Shop, "_begin", lambda self: None)
    monkeypatch.setattr(shops.Shop, "present", classmethod(lambda cls, lab: None))
    monkeypatch.setattr(shops, "core_api", lambda _: _Nothing())
    drawn = []
    monkeypatch.setattr(shops, "MISTAKES", [lambda shop, at=at: drawn.append(at) for at in range(6)])
    built = [shops.Shop.build(lab) for _ in range(12)]
    assert len({(each.suffix, each.cart, each.till) for each in built}) == 12
    assert len({frozenset(drawn[at : at + 3]) for at in range(0, 36, 3)}) > 3


def test_a_notebook_shows_the_brief_as_a_page(capstone, capsys):
    shown, _ = DisplayFormatter().format(capstone)
    assert f"\n- `{capstone.shop.cart}`: write and read `{capstone.shop.baskets}/baskets/*`\n" in shown["text/markdown"]
    assert capsys.readouterr().out == "", "printed lines break words in a narrow window"


def test_without_its_bucket_the_shop_is_built_again(lab, capstone):
    irsa_and_a_bucket_policy(capstone.shop)
    s3 = capstone.shop.lab.aws.client("s3")
    for each in s3.list_objects_v2(Bucket=capstone.shop.baskets).get("Contents", []):
        s3.delete_object(Bucket=capstone.shop.baskets, Key=each["Key"])
    s3.delete_bucket(Bucket=capstone.shop.baskets)
    with pytest.raises(LabError, match="The shop's bucket can't be used: NoSuchBucket") as caught:
        capstone.check()
    assert caught.value.next.startswith("create the bucket again; or, to begin again with nothing:  ")
    s3.create_bucket(Bucket=capstone.shop.baskets)


class _Nothing:
    """A cluster that keeps nothing."""

    def create_namespaced_config_map(self, *_):
        return None
