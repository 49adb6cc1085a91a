"""Tries at the exercises of notebook 01."""

from labkit import Lab
from tests.course.attempts import Attempts

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
AWS = "sts.amazonaws.com"
CART = "cart found InvalidIdentityToken"


def issuer(lab: Lab, cluster: str) -> str:
    return lab.aws.client("eks").describe_cluster(name=cluster)["cluster"]["identity"]["oidc"]["issuer"]


def arn(lab: Lab, cluster: str) -> dict[str, str]:
    name = issuer(lab, cluster).removeprefix("https://")
    return {"OpenIDConnectProviderArn": f"arn:aws:iam::{lab.account_id}:oidc-provider/{name}"}


def register(lab: Lab, url: str, *audiences: str, **more: list[str]) -> None:
    lab.aws.client("iam").create_open_id_connect_provider(Url=url, ClientIDList=[*audiences], **more)


def audiences(lab: Lab, cluster: str, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
    iam, provider = lab.aws.client("iam"), arn(lab, cluster)
    for audience in add:
        iam.add_client_id_to_open_id_connect_provider(**provider, ClientID=audience)
    for audience in remove:
        iam.remove_client_id_from_open_id_connect_provider(**provider, ClientID=audience)


@wrong("01-a", CART)
def the_audience_of_the_api_server(lab, name):
    register(lab, issuer(lab, name), "https://kubernetes.default.svc")


@wrong("01-a", CART)
def no_audience(lab, name):
    register(lab, issuer(lab, name))


@wrong("01-a", "a token for vault found AccessDenied")
def one_audience_too_many(lab, name):
    register(lab, issuer(lab, name), AWS, "vault")


@right("01-a")
def with_a_thumbprint(lab, name):
    register(lab, issuer(lab, name), AWS, ThumbprintList=["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"])


@right("01-a")
def the_audience_added_later(lab, name):
    register(lab, issuer(lab, name))
    audiences(lab, name, add=(AWS,))


@wrong("01-b", "a token for https://kubernetes.default.svc found AccessDenied")
def only_added(lab, name):
    audiences(lab, name, add=(AWS,))


@wrong("01-b", CART)
def only_removed(lab, name):
    audiences(lab, name, remove=("https://kubernetes.default.svc",))


@wrong("01-b", CART)
def a_regional_name_of_sts(lab, name):
    audiences(lab, name, add=("sts.us-east-1.amazonaws.com",), remove=("https://kubernetes.default.svc",))


@right("01-b")
def removed_first(lab, name):
    audiences(lab, name, remove=("https://kubernetes.default.svc",))
    audiences(lab, name, add=(AWS,))


@right("01-b")
def registered_again(lab, name):
    url = issuer(lab, name)
    lab.aws.client("iam").delete_open_id_connect_provider(**arn(lab, name))
    register(lab, url, AWS)


def register_again(lab: Lab, name: str, *audiences: str) -> None:
    url = issuer(lab, name)
    lab.aws.client("iam").delete_open_id_connect_provider(**arn(lab, name))
    register(lab, url, *audiences)


API, REGIONAL = "https://kubernetes.default.svc", "sts.us-east-1.amazonaws.com"
ATTEMPTS.more(
    "01-a",
    wrong={
        "the issuer of the first cluster": (CART, lambda lab, name: audiences(lab, lab.parameters.cluster)),
        "a regional name of STS": (CART, lambda lab, name: register(lab, issuer(lab, name), REGIONAL)),
        "a regional name beside STS": (
            f"a token for {REGIONAL} found AccessDenied",
            lambda lab, name: register(lab, issuer(lab, name), AWS, REGIONAL),
        ),
        "the API server beside STS": (
            f"a token for {API} found AccessDenied",
            lambda lab, name: register(lab, issuer(lab, name), AWS, API),
        ),
        "STS with its scheme": (CART, lambda lab, name: register(lab, issuer(lab, name), f"https://{AWS}")),
        "another issuer": (CART, lambda lab, name: register(lab, f"{issuer(lab, name)[:-4]}0000", AWS)),
        "registered, and the audience taken away": (
            CART,
            lambda lab, name: (register(lab, issuer(lab, name), AWS), audiences(lab, name, remove=(AWS,))),
        ),
    },
    right={
        "another audience first": lambda lab, name: (
            register(lab, issuer(lab, name), "vault"),
            audiences(lab, name, add=(AWS,), remove=("vault",)),
        ),
        "registered twice": lambda lab, name: (register(lab, issuer(lab, name), API), register_again(lab, name, AWS)),
        "a surplus audience taken away": lambda lab, name: (
            register(lab, issuer(lab, name), AWS, REGIONAL),
            audiences(lab, name, remove=(REGIONAL,)),
        ),
    },
)
ATTEMPTS.more(
    "01-b",
    wrong={
        "a regional name as well": (
            f"a token for {REGIONAL} found AccessDenied",
            lambda lab, name: audiences(lab, name, add=(AWS, REGIONAL), remove=(API,)),
        ),
        "vault in place of the API server": (
            "a token for vault found AccessDenied",
            lambda lab, name: audiences(lab, name, add=(AWS, "vault"), remove=(API,)),
        ),
        "nothing": (CART, lambda lab, name: None),
        "the provider deleted": (
            CART,
            lambda lab, name: lab.aws.client("iam").delete_open_id_connect_provider(**arn(lab, name)),
        ),
        "registered again with both": (
            f"a token for {API} found AccessDenied",
            lambda lab, name: register_again(lab, name, AWS, API),
        ),
        "STS with its scheme": (CART, lambda lab, name: register_again(lab, name, f"https://{AWS}")),
        "STS in capitals": (CART, lambda lab, name: register_again(lab, name, AWS.upper())),
    },
    right={
        "an audience that comes and goes": lambda lab, name: (
            audiences(lab, name, add=(AWS, "vault")),
            audiences(lab, name, remove=("vault", API)),
        ),
        "registered again, the audience later": lambda lab, name: (
            register_again(lab, name),
            audiences(lab, name, add=(AWS,)),
        ),
        "added twice": lambda lab, name: (
            audiences(lab, name, add=(AWS,), remove=(API,)),
            audiences(lab, name, add=(AWS,)),
        ),
    },
)
