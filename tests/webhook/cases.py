"""The cases of `test_review`: annotations and a pod, with the variables, mounts and volumes that its containers get."""

from dataclasses import dataclass, field

from labkit.webhook import AccountSettings

ROLE = "arn:aws:iam::123456789012:role/my-role"
FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
IDENTITY = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}
REGION = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
STS = {"AWS_STS_REGIONAL_ENDPOINTS": "regional"}
ALL = STS | REGION | IDENTITY
MOUNT = {"name": "aws-iam-token", "readOnly": True, "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}


def token_volume(audience="sts.amazonaws.com", seconds=86400):
    token = {"audience": audience, "expirationSeconds": seconds, "path": "token"}
    return {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


def container(name="app", env=None, mounts=None, **more):
    return {
        "name": name,
        "image": "amazon/aws-cli",
        **({"env": [{"name": key, "value": value} for key, value in env.items()]} if env else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **more,
    }


@dataclass
class Case:
    says: str
    account: dict = field(default_factory=dict)  # annotations of the service account, in addition to the role's
    options: dict = field(default_factory=dict)  # the webhook's own
    defaults: AccountSettings = AccountSettings()  # the webhook's, for accounts without the annotation  # noqa: RUF009
    pod: dict = field(default_factory=dict)  # annotations of the pod
    spec: dict = field(default_factory=lambda: {"containers": [container()]})
    env: dict = field(default_factory=lambda: {"app": ALL})  # by container, in this order
    mounts: dict = field(default_factory=dict)  # by container, unless it is only the token's
    volumes: list = field(default_factory=lambda: [token_volume()])


EKS = "eks.amazonaws.com/"
PRESET = {"AWS_ROLE_ARN": "a", "AWS_REGION": "b", "AWS_STS_REGIONAL_ENDPOINTS": "c"}
emptydir = {"name": "aws-iam-token", "emptyDir": {}}
other_volume = {"name": "data", "emptyDir": {}}
sidecar = container("proxy", restartPolicy="Always", readinessProbe={"exec": {"command": ["true"]}})


def preset(says, present, added, **more):
    """A container with the variables `present`, to which the webhook adds the variables `added`."""
    return Case(says, spec={"containers": [container(env=present)]}, env={"app": present | added}, **more)


def lasting(seconds):
    return [token_volume(seconds=seconds)]


CASES = [
    Case("a container without anything gets all variables, the mount and the volume"),
    Case("the account's audience", account={"audience": "vault"}, volumes=[token_volume("vault")]),
    Case("the account's expiration", account={"token-expiration": "3600"}, volumes=lasting(3600)),
    Case("the pod's expiration wins over the account's", account={"token-expiration": "3600"},
         pod={"token-expiration": "7200"}, volumes=lasting(7200)),
    Case("the account's expiration is 600 at least", account={"token-expiration": "60"}, volumes=lasting(600)),
    Case("the pod's expiration is 600 at least", pod={"token-expiration": "-1"}, volumes=lasting(600)),
    Case("an expiration that is not a number is passed over (account)", account={"token-expiration": "1h"}),
    Case("an expiration that is not a number is passed over (pod)", account={"token-expiration": "3600"},
         pod={"token-expiration": "1h"}, volumes=lasting(3600)),
    Case("a sign and leading zeros are part of a number", account={"token-expiration": "+0003600"},
         volumes=lasting(3600)),
    Case("an expiration of the minimum", account={"token-expiration": "600"}, volumes=lasting(600)),
    Case("an expiration of more than a day is passed on: the API server shortens the token",
         account={"token-expiration": "172800"}, volumes=lasting(172800)),
    *(Case(f"an expiration that is not a 64-bit integer is passed over ({value!r})",
           account={"token-expiration": value}) for value in ("", " 3600", "3600.0", "3_600", "9223372036854775808",
            "-9223372036854775809", "\u0663600")),
    Case("an empty audience is passed on: the API server's own", account={"audience": ""}, volumes=[token_volume("")]),
    Case("an audience on the pod changes nothing", pod={"audience": "vault"}),
    Case("regional endpoints on the pod change nothing", pod={"sts-regional-endpoints": "false"}),
    *(Case(f"a role's ARN is injected unchecked: STS judges it ({role!r})", account={"role-arn": role},
           env={"app": STS | REGION | {"AWS_ROLE_ARN": role,
            "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}}) for role in ("my-role", "arn:aws:iam::123456789012:user/me",
            " " + ROLE)),
    *(Case(f"{value!r} turns regional endpoints off", account={"sts-regional-endpoints": value},
           env={"app": REGION | IDENTITY}) for value in ("0", "f", "F", "FALSE", "False")),
    *(Case(f"{value!r} turns regional endpoints on", account={"sts-regional-endpoints": value},
           defaults=AccountSettings(sts_regional_endpoints=False)) for value in ("true", "1", "t", "T", "TRUE",
            "True")),
    Case("without regional endpoints", account={"sts-regional-endpoints": "false"}, env={"app": REGION | IDENTITY}),
    Case("a word that is not a boolean is passed over", account={"sts-regional-endpoints": "nein"}),
    Case("the role on the pod's annotations changes nothing", pod={"role-arn": "arn:aws:iam::123456789012:role/other"}),
    preset("a preset role keeps out the token file: neither is injected", {"AWS_ROLE_ARN": "mine"}, STS | REGION),
    preset("a preset token file keeps out the role", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/mine"}, STS | REGION),
    preset("one preset region variable keeps out the other", {"AWS_REGION": "eu-west-1"}, STS | IDENTITY),
    preset("preset endpoints are kept", {"AWS_STS_REGIONAL_ENDPOINTS": "legacy"}, REGION | IDENTITY),
    preset("a container with one of each kind is left alone, mount included", PRESET, {}, mounts={"app": None}),
    Case("a mount of the volume is kept, wherever it is",
         spec={"containers": [container(mounts=[{"name": "aws-iam-token", "mountPath": "/mine"}])]},
         mounts={"app": [{"name": "aws-iam-token", "mountPath": "/mine"}]}),
    Case("other mounts stay first", spec={"containers": [container(mounts=[{"name": "data", "mountPath": "/data"}])],
            "volumes": [other_volume]}, mounts={"app": [{"name": "data", "mountPath": "/data"}, MOUNT]},
         volumes=[token_volume(), other_volume]),
    Case("a volume of that name is kept whatever it holds, and mounted",
         spec={"containers": [container()], "volumes": [emptydir]}, volumes=[emptydir]),
    Case("another volume at the token's mount path is not looked at: the API server refuses such a pod",
         spec={"containers": [container(mounts=[{"name": "data", "mountPath": MOUNT["mountPath"]}])],
               "volumes": [other_volume]}, mounts={"app": [{"name": "data", "mountPath": MOUNT["mountPath"]}, MOUNT]},
         volumes=[token_volume(), other_volume]),
    Case("a token volume of one's own keeps its audience and expiration",
         account={"audience": "vault", "token-expiration": "600"},
         spec={"containers": [container()], "volumes": [token_volume("mine", 7200)]},
         volumes=[token_volume("mine", 7200)]),
    Case("a container that is left alone keeps the others from nothing",
         spec={"containers": [container(env=PRESET), container("second")]}, env={"app": PRESET, "second": ALL},
         mounts={"app": None}),
    preset("without a region, preset identity and endpoints still leave the mount",
           {"AWS_ROLE_ARN": "a", "AWS_STS_REGIONAL_ENDPOINTS": "c"}, {}, options={"region": ""}),
    preset("both region variables that are preset are kept",
           {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, STS | IDENTITY),
    preset("the default region keeps out the region", {"AWS_DEFAULT_REGION": "eu-west-1"}, STS | IDENTITY),
    preset("keys of one's own keep out nothing: the SDK uses them instead of the role",
           {"AWS_ACCESS_KEY_ID": "AKIA", "HOME": "/"}, ALL),
    Case("envFrom is not looked at",
         spec={"containers": [container(envFrom=[{"configMapRef": {"name": "with-aws-role-arn"}}])]}),
    Case("volumes that are null", spec={"containers": [container()], "volumes": None}),
    Case("variables and mounts that are null",
         spec={"containers": [container() | {"env": None, "volumeMounts": None}]}),
    Case("the webhook's region", options={"region": ""}, env={"app": STS | IDENTITY}),
    Case("the webhook's audience", defaults=AccountSettings(audience="vault"), volumes=[token_volume("vault")]),
    Case("the account's audience wins over the webhook's", account={"audience": "mine"},
         defaults=AccountSettings(audience="vault"), volumes=[token_volume("mine")]),
    Case("the webhook's expiration", defaults=AccountSettings(token_expiration=3600), volumes=lasting(3600)),
    Case("an expiration that cannot be read is the webhook's", account={"token-expiration": "1h"},
         pod={"token-expiration": ""}, defaults=AccountSettings(token_expiration=3600), volumes=lasting(3600)),
    Case("the webhook's regional endpoints", defaults=AccountSettings(sts_regional_endpoints=False),
         env={"app": REGION | IDENTITY}),
    Case("the webhook's mount path", options={"mount_path": "/mine/"},
         env={"app": STS | REGION | {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/mine/token"}},
         mounts={"app": [MOUNT | {"mountPath": "/mine/"}]}),
    Case("annotations of another prefix say nothing", options={"prefix": "example.com"},
         pod={"skip-containers": "app", "token-expiration": "600"}),
    Case("an empty list of volumes", spec={"containers": [container()], "volumes": []}),
    Case("containers to skip", pod={"skip-containers": "setup,log"},
         spec={"initContainers": [container("setup")], "containers": [container(), container("log")]},
         env={"setup": {}, "app": ALL, "log": {}}, mounts={"setup": None, "log": None}),
    Case("a quoted name is skipped", pod={"skip-containers": '"app"'}, env={"app": {}}, mounts={"app": None}),
    Case("a blank belongs to the name", pod={"skip-containers": "x, app"}),
    Case("only the first line counts", pod={"skip-containers": "x\napp"}),
    Case("a list that is not CSV skips nobody", pod={"skip-containers": 'app,"log'}),
    Case("a bare quote is not CSV", pod={"skip-containers": 'app,lo"g'}),
    Case("a name that nobody has skips nobody", pod={"skip-containers": "other"}),
    Case("containers of all kinds may be skipped: the volume is there all the same", pod={"skip-containers": "app"},
         env={"app": {}}, mounts={"app": None}),
    Case("an empty list skips nobody", pod={"skip-containers": ""}),
    Case("init containers and native sidecars get it, too, with all their fields",
         spec={"initContainers": [container("setup"), sidecar], "containers": [container()]},
         env={"setup": ALL, "proxy": ALL, "app": ALL}),
    Case("ephemeral containers are left alone: kubectl debug adds them later, past the webhook",
         spec={"containers": [container()], "ephemeralContainers": [container("debugger")]}),
    Case("fields that are newer than the webhook are kept",
         spec={"containers": [container(restartPolicyRules=[{"action": "Restart"}])]}),
    Case("the security context is left alone: fsGroup, and who may read the token, is the node's affair",
         spec={"containers": [container(securityContext={"runAsUser": 1000})],
               "securityContext": {"runAsNonRoot": True}}),
    *(
        Case(f"a pod for Windows by {how} is not recognized", spec={"containers": [container()], **spec})
        for how, spec in {
            "its os": {"os": {"name": "windows"}},
            "affinity": {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}
                                    ]
                                }
                            ]
                        }
                    }
                }
            },
        }.items()
    ),
    Case("a pod for Linux by its node selector", spec={"containers": [container()],
            "nodeSelector": {"kubernetes.io/os": "linux"}}),
    Case("variables with valueFrom stay as they are",
         spec={"containers": [container() | {"env": [{"name": "AWS_REGION", "valueFrom": {"fieldRef": {}}}]}]},
         env={"app": {"AWS_REGION": None} | STS | IDENTITY}),
    *(
        Case(
            f"a pod for Windows ({label})",
            spec={"containers": [container()], "nodeSelector": {label: "windows"}},
            env={
                "app": STS
                | REGION
                | {
                    "AWS_ROLE_ARN": ROLE,
                    "AWS_WEB_IDENTITY_TOKEN_FILE": r"C:\var\run\secrets\eks.amazonaws.com\serviceaccount\token",
                }
            },
        )
        for label in ("kubernetes.io/os", "beta.kubernetes.io/os")
    ),
]  # fmt: skip
