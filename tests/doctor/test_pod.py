"""The pod and its containers: each fault is found alone, and its repair leaves nothing to be found."""

import base64
import json
import shlex
import subprocess

import pytest

from labkit import doctor
from labkit.diagnosis.evidence import Evidence, Reads
from labkit.doctor import repairing
from labkit.errors import LabError
from labkit.steps import pod
from tests.doctor.applying import applied, made
from tests.doctor.recording import (
    CONNECTION,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    INLINE,
    ISSUER,
    JOBS,
    PARAMETERS,
    PODS,
    PROVIDER,
    PROVIDERS,
    REPLICA_SETS,
    ROLE,
    ROLE_ARN,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    TOKEN_FILE,
    WEBHOOK,
    a_pod,
    healthy,
)
from tests.doctor.repairing import commands

KEY = "eks.amazonaws.com/role-arn"
REGIONS = f"ec2:DescribeRegions ({ROLE_ARN.split(':')[4]})"
CONFIG_MAP = "get configmap settings -n default"


def examine(answers, **settings):
    settings = {"probe": False, **settings}
    return doctor.examine(Evidence(PARAMETERS, CONNECTION, reads=Reads(answers), **settings))


def found(answers, **settings):
    return [finding.id for finding in examine(answers, **settings).findings]


def applying(change, config_map=None):
    """A healthy lab whose pod was applied otherwise."""
    answers, manifest = healthy(), pod.build(PARAMETERS)
    if config_map is not None:
        answers[CONFIG_MAP] = {"metadata": {"name": "settings"}, "data": config_map}
    change(manifest)
    answers[PODS] = [made(manifest, answers)]
    return answers


def with_variables(**values):
    entries = [{"name": name, "value": value} for name, value in values.items()]
    return lambda manifest: manifest["spec"]["containers"][0].update(env=entries)


def with_sources(manifest):
    manifest["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "settings"}}]


def with_config(manifest):
    container = manifest["spec"]["containers"][0]
    manifest["spec"]["volumes"] = [{"name": "settings", "configMap": {"name": "settings"}}]
    container["volumeMounts"] = [{"name": "settings", "mountPath": "/root/.aws"}]


def with_key_of_secret(manifest):
    source = {"secretKeyRef": {"name": "keys", "key": "id"}}
    manifest["spec"]["containers"][0]["env"] = [{"name": "AWS_ACCESS_KEY_ID", "valueFrom": source}]


def with_identity(role_arn, file=TOKEN_FILE):
    return with_variables(AWS_ROLE_ARN=role_arn, AWS_WEB_IDENTITY_TOKEN_FILE=file)


def projected(audience="sts.amazonaws.com"):
    return {"projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "token"}}]}}


def with_own_token(manifest, volume, role_arn=ROLE_ARN):
    """The manifest names the role itself, and the token in a volume of its own."""
    manifest["spec"]["volumes"] = [{"name": "own", **volume}]
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "own", "mountPath": "/etc/own"}]
    with_identity(role_arn, "/etc/own/token")(manifest)


def with_token_of(kind):
    source = {"ConfigMap": {"configMap": {"name": "settings"}}, "Secret": {"secret": {"secretName": "settings"}}}[kind]
    return lambda manifest: with_own_token(manifest, source)


def applying_by_hand(role_arn):
    """A pod whose manifest is known by what kubectl noted of it."""
    answers = applying(lambda manifest: with_own_token(manifest, projected(), role_arn))
    note = {"spec": {"containers": [{"name": "aws", "env": [{"name": "AWS_ROLE_ARN", "value": role_arn}]}]}}
    live = answers[PODS][0]
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(note)}
    # By their order, the webhook could have named the role, too.
    live["spec"]["containers"][0]["env"].reverse()
    return answers


def copied_token(**claims):
    claims = {"iss": ISSUER, "sub": PARAMETERS.subject, "aud": ["sts.amazonaws.com"], **claims}
    parts = ({"alg": "RS256", "kid": "an-old-one"}, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)


KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"}
LONG_SESSION = f"[default]\nrole_arn = {ROLE_ARN}\nweb_identity_token_file = {TOKEN_FILE}\nduration_seconds = 7200\n"
CHAINED = "[profile a]\nrole_arn = arn:aws:iam::123456789012:role/b\nsource_profile = default\nduration_seconds=3601\n"

FAULTS = {
    "pod-static-keys": [
        applying(with_variables(**KEYS)),
        applying(with_sources, KEYS),
        applying(with_key_of_secret),
    ],
    "pod-aws-profile": [
        applying(with_variables(AWS_PROFILE="dev")),
        applying(with_sources, {"AWS_PROFILE": "dev"}),
        applying(lambda m: (with_config(m), with_variables(AWS_PROFILE="dev")(m)), {"config": "[profile prod]\n"}),
    ],
    "pod-uses-the-api-server-token": [
        applying(
            with_variables(
                AWS_ROLE_ARN=ROLE_ARN,
                AWS_WEB_IDENTITY_TOKEN_FILE="/var/run/secrets/kubernetes.io/serviceaccount/token",
            )
        )
    ],
    "pod-token-variable-missing": [applying(with_variables(AWS_ROLE_ARN=ROLE_ARN))],
    "pod-role-variable-missing": [applying(with_variables(AWS_WEB_IDENTITY_TOKEN_FILE=TOKEN_FILE))],
    "pod-variables-empty": [
        applying(with_variables(AWS_ROLE_ARN="", AWS_WEB_IDENTITY_TOKEN_FILE="")),
        applying(with_variables(AWS_ROLE_ARN="")),
    ],
    "pod-token-file-missing": [
        applying(with_variables(AWS_ROLE_ARN=ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE="/var/run/aws/token"))
    ],
    "pod-role-set-by-hand": [
        applying(with_identity(f"{ROLE_ARN}-of-payments")),
        applying_by_hand(f"{ROLE_ARN}-of-payments"),
    ],
    "pod-region-empty": [
        applying(with_variables(AWS_REGION="")),
        applying(with_variables(AWS_DEFAULT_REGION="", AWS_REGION="us-east-1")),
    ],
    "token-copied": [
        applying(with_token_of("ConfigMap"), {"token": copied_token(exp=1735776000)}),
        applying(with_token_of("ConfigMap"), {"token": f"{copied_token(exp=1735776000)}\n"}),
    ],
    "token-malformed": [applying(with_token_of("ConfigMap"), {"token": "11:11:49 EOF"})],
    "pod-role-session-name-invalid": [
        applying(with_variables(AWS_ROLE_SESSION_NAME="n" * 65)),
        applying(with_variables(AWS_ROLE_SESSION_NAME="the reader")),
        applying(with_sources, {"AWS_ROLE_SESSION_NAME": "x"}),
    ],
    "role-session-too-long": [applying(with_config, {"config": LONG_SESSION})],
    "pod-sts-endpoint-of-another-region": [
        applying(with_variables(AWS_ENDPOINT_URL_STS="https://sts.eu-west-1.amazonaws.com")),
        applying(with_variables(AWS_ENDPOINT_URL="https://sts.amazonaws.com", AWS_REGION="eu-west-1"))
        | {REGIONS: [{"RegionName": "eu-west-1", "OptInStatus": "opt-in-not-required"}]},
    ],
    "region-not-activated": [
        applying(with_variables(AWS_REGION="af-south-1"))
        | {REGIONS: [{"RegionName": "af-south-1", "OptInStatus": "not-opted-in"}]},
        applying(with_variables(AWS_REGION="us-esat-1")) | {REGIONS: []},
    ],
    "pod-uses-another-service-account": [applying(lambda m: m["spec"].pop("serviceAccountName"))],
    "pod-not-running": [
        healthy() | {PODS: [a_pod() | {"status": {"phase": "Pending"}}]},
        healthy()
        | {
            PODS: [
                a_pod()
                | {
                    "status": {
                        "phase": "Pending",
                        "containerStatuses": [{"name": "aws", "state": {"waiting": {"reason": "ErrImagePull"}}}],
                    }
                }
            ]
        },
    ],
    "pod-windows-by-affinity": [
        applying(
            lambda m: m["spec"].update(
                affinity={
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
            )
        )
    ],
}


@pytest.mark.parametrize(("id", "answers"), [(id, answers) for id, each in FAULTS.items() for answers in each])
def test_a_pod_s_fault_is_found_alone_and_mended_by_its_repair(id, answers):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert finding.severity == "error"
    assert finding.expected != finding.found
    assert found(applied(answers, finding.repair)) == []


PROXY = {"HTTPS_PROXY": "http://somebody:hunter2@proxy.example.com:3128"}


@pytest.mark.parametrize(
    ("id", "answers", "says"),
    [
        ("pod-proxy-without-no-proxy", applying(with_variables(**PROXY)), "no NO_PROXY"),
        (
            "pod-proxy-without-no-proxy",
            applying(with_sources, {**PROXY, "NO_PROXY": "localhost,.example.com"}),
            "(ConfigMap settings), NO_PROXY=localhost,.example.com",
        ),
        (
            "token-copied",
            applying(with_token_of("ConfigMap"), {"token": copied_token(exp=4102444800)}),
            "good until 21",
        ),
        ("token-copied", applying(with_token_of("Secret")), "(Secret settings)"),
    ],
)
def test_what_may_work_is_a_warning_and_its_repair_is_words(id, answers, says):
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == (id, "warning")
    assert says in finding.found
    assert "hunter2" not in f"{finding}"
    assert all(line.startswith("#") for line in finding.repair.splitlines())


@pytest.mark.parametrize(
    "variables",
    [
        {"NO_PROXY": "sts.us-east-1.amazonaws.com"},
        {"no_proxy": "10.0.0.0/8, .amazonaws.com"},
        {"NO_PROXY": "*"},
        {"AWS_ENDPOINT_URL_STS": "http://sts.test:4566"},
    ],
)
def test_a_proxy_that_sts_is_excepted_from_is_right(variables):
    assert found(applying(with_variables(**PROXY, **variables))) == []


def test_a_pod_that_names_its_role_itself_needs_no_annotation():
    answers = applying(lambda manifest: with_own_token(manifest, projected()))
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    live = answers[PODS][0]["spec"]
    live["containers"][0]["env"] = live["containers"][0]["env"][:2]  # no webhook was there
    live["volumes"] = [volume for volume in live["volumes"] if volume["name"] == "own"]
    diagnosis = examine(answers)
    assert [(each.id, each.severity) for each in diagnosis.findings] == [("pod-names-its-role", "note")]
    assert (diagnosis.ok, diagnosis.exit_code, diagnosis.role_arn) == (True, 0, ROLE_ARN)
    # It does without the webhook, whether that is missing or told to pass over the pod.
    answers[PODS][0]["metadata"]["labels"]["eks.amazonaws.com/skip-pod-identity-webhook"] = "true"
    assert found(answers) == ["pod-names-its-role"]
    without = examine(answers | {WEBHOOK: None})
    assert {each.id for each in without.findings} == {"webhook-missing", "pod-names-its-role"}
    assert without.exit_code == 0
    # A role that does not admit the service account is not a note.
    answers[ROLE]["AssumeRolePolicyDocument"]["Statement"][0]["Action"] = "sts:AssumeRole"
    assert {"trust-policy-action-wrong", "service-account-annotation-missing"} <= set(found(answers))


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        ({"value": "my-role"}, []),
        ({"value": "$(OTHER)"}, []),
        ({"value": "other"}, ["pod-role-set-by-hand"]),
        # The node fills in what only it knows.
        ({"valueFrom": {"secretKeyRef": {"name": "role", "key": "name"}}}, []),
    ],
)
def test_a_role_that_is_named_by_other_variables_is_the_one_that_they_make(entry, seen):
    def with_references(manifest):
        with_own_token(manifest, projected(), ROLE_ARN.replace("my-role", "$(NAME)"))
        env = manifest["spec"]["containers"][0]["env"]
        env[:0] = [{"name": "OTHER", "value": "my-role"}, {"name": "NAME", **entry}]

    assert [each for each in found(applying(with_references)) if each != "pod-names-its-role"] == seen


@pytest.mark.parametrize("text", ["$(LATER)", "$$(NAME)"])
def test_a_reference_that_the_node_leaves_as_it_is_names_no_role(text):
    def with_reference(manifest):
        with_own_token(manifest, projected(), ROLE_ARN.replace("my-role", text))
        env = manifest["spec"]["containers"][0]["env"]
        env[:] = [{"name": "NAME", "value": "my-role"}, *env, {"name": "LATER", "value": "my-role"}]

    (finding,) = examine(applying(with_reference)).findings
    assert finding.id == "pod-role-set-by-hand"
    assert finding.found.endswith(f"{ROLE_ARN.replace('my-role', text.replace('$$', '$'))} (env of the manifest)")


def test_a_token_volume_of_the_manifest_is_made_for_sts_in_the_manifest():
    answers = applying(lambda manifest: with_own_token(manifest, projected("vault")))
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("token-audience-mismatch", "vault")
    assert "annotate" not in finding.repair
    after = applied(answers, finding.repair)
    (own,) = [volume for volume in after[PODS][0]["spec"]["volumes"] if volume["name"] == "own"]
    assert own["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "sts.amazonaws.com"
    assert (found(after), examine(after).exit_code) == (["pod-names-its-role"], 0)


def test_a_token_volume_that_another_container_needs_keeps_its_token():
    """The other one may log in to Vault with it."""

    def with_vault(manifest):
        with_own_token(manifest, projected("vault"))
        mounts = manifest["spec"]["containers"][0]["volumeMounts"]
        manifest["spec"]["containers"].append({"name": "vault", "image": "vault", "volumeMounts": [*mounts]})

    answers = applying(with_vault)
    (finding,) = [each for each in examine(answers).findings if each.id == "token-audience-mismatch"]
    assert finding.repair.splitlines()[0] == (
        "# The volume own keeps its token for vault: the container vault may need it."
    )
    after = applied(answers, finding.repair)
    (own,) = [volume for volume in after[PODS][0]["spec"]["volumes"] if volume["name"] == "own"]
    tokens = [source["serviceAccountToken"] for source in own["projected"]["sources"]]
    assert [(token["audience"], token["path"]) for token in tokens] == [
        ("vault", "token"),
        ("sts.amazonaws.com", "token-for-sts"),
    ]
    assert "token-audience-mismatch" not in found(after)


def test_a_token_for_somebody_else_shows_beside_a_provider_that_is_missing():
    answers = applying(lambda manifest: with_own_token(manifest, projected("vault"))) | {PROVIDERS: [], PROVIDER: None}
    assert set(found(answers)) == {"oidc-provider-missing", "token-audience-mismatch"}


def test_two_faults_of_one_pod_are_both_found_and_each_repair_mends_both():
    answers = applying(with_variables(AWS_PROFILE="dev", AWS_ROLE_ARN="", **KEYS))
    findings = examine(answers).findings
    assert sorted(finding.id for finding in findings) == ["pod-aws-profile", "pod-static-keys", "pod-variables-empty"]
    for finding in findings:
        answers = applied(answers, finding.repair)
    assert found(answers) == []


def test_every_container_is_looked_at_and_named():
    def with_sidecar(manifest):
        sidecar = {"name": "proxy", "image": "proxy", "env": [{"name": "AWS_PROFILE", "value": "dev"}]}
        manifest["spec"]["containers"].append(sidecar)

    (finding,) = examine(applying(with_sidecar)).findings
    assert finding.found == "container proxy: AWS_PROFILE=dev"


def test_no_key_and_no_other_secret_is_printed():
    variables = {**KEYS, "DB_PASSWORD": "hunter2", "GREETING": "hello"}
    (finding,) = examine(applying(with_variables(**variables))).findings
    shown = f"{finding}"
    assert "hello" in finding.repair
    assert not any(secret in shown for secret in ("hunter2", *KEYS.values()))


@pytest.mark.parametrize(
    ("change", "config_map"),
    [
        (with_variables(AWS_PROFILE="dev", DB_PASSWORD="hunter2"), None),
        (lambda m: (with_sources(m), with_variables(DB_PASSWORD="hunter2")(m)), KEYS),
    ],
    ids=["variable", "ConfigMap"],
)
def test_a_pod_with_a_value_that_is_not_shown_is_left_to_its_author(change, config_map):
    (finding,) = examine(applying(change, config_map)).findings
    told = finding.repair.splitlines()
    assert told[:2] == [
        "# Do not run these lines: the pod my-pod would lose values that are not shown (DB_PASSWORD).",
        "# The author of the pod can change its original manifest like this, keep these values, and apply it:",
    ]
    assert "#   kubectl delete pod my-pod -n default --grace-period=1" in told
    assert "NOT-SHOWN" in told[-1]
    assert commands(finding.repair) == []
    assert repairing.why_not_run(finding.repair)


def test_a_secret_whose_keys_are_all_variables_is_not_read_and_it_is_said():
    def with_secret(manifest):
        manifest["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "keys"}}]

    diagnosis = examine(applying(with_secret))
    assert not diagnosis.findings
    assert "get secret keys -n default" in [unread.call for unread in diagnosis.unread]


def test_the_first_line_names_what_keeps_the_doctor_from_an_answer_also_beside_a_note():
    looping = a_pod()
    looping["metadata"]["ownerReferences"] = [{"kind": "Runner", "name": "my-pod", "controller": True}]
    looping["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "keys"}}]
    event = {"reason": "Killing", "count": 9, "involvedObject": {"kind": "Pod", "name": "my-pod"}}
    diagnosis = examine(healthy() | {PODS: [looping], EVENTS: [event]})
    assert [finding.severity for finding in diagnosis.findings] == ["note"]
    assert diagnosis.exit_code == 2
    first = "! default/my-service-account: could not be read in full: get secret keys -n default: "
    assert repr(diagnosis).startswith(first) and diagnosis.headline.startswith(first)
    assert diagnosis._repr_html_().index("get secret keys") < diagnosis._repr_html_().index("again and again")
    assert "1 more note:" in repr(diagnosis)


@pytest.mark.parametrize(
    "answers",
    [
        applying(lambda m: (with_config(m), with_variables(AWS_PROFILE="dev")(m)), {"config": "[profile dev]\n"}),
        applying(with_config, {"config": LONG_SESSION.replace("7200", "3600")}),
        applying(with_variables(AWS_ROLE_SESSION_NAME="reader@cart")),
        applying(with_variables(AWS_ENDPOINT_URL_STS="https://sts.us-east-1.amazonaws.com")),
        applying(with_variables(AWS_ENDPOINT_URL="http://127.0.0.1:4566")),
        healthy() | {PODS: [a_pod() | {"status": {"phase": "Succeeded"}}]},
    ],
)
def test_what_is_right_is_left_alone(answers):
    assert found(answers) == []


def test_a_token_for_somebody_else_is_seen_also_where_no_container_sends_it():
    answers = healthy()
    spec = answers[PODS][0]["spec"]
    spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "vault"
    spec["containers"][0]["env"] = []
    (finding,) = [each for each in examine(answers).findings if each.id == "token-audience-mismatch"]
    assert (finding.expected, finding.found) == ("sts.amazonaws.com", "vault")


def test_a_chained_session_lasts_an_hour_whatever_the_role_allows():
    answers = applying(with_config, {"config": CHAINED})
    answers[ROLE]["MaxSessionDuration"] = 43200
    assert found(answers) == ["role-session-too-long"]


@pytest.mark.zsh
@pytest.mark.parametrize("program", ["bash", "zsh", "sh"])
def test_the_pod_that_is_made_again_runs_the_same_command_whatever_shell_the_repair_is_pasted_into(program):
    script = "printf 'a\\tb'\nsleep infinity"

    def change(manifest):
        (container,) = manifest["spec"]["containers"]
        container["command"] = ["sh", "-c", script]
        container["env"] = [{"name": name, "value": value} for name, value in KEYS.items()]

    (finding,) = examine(answers := applying(change)).findings
    typed = f"kubectl() {{ cat; }}\n{commands(finding.repair)[-1]}"
    done = subprocess.run([program], input=typed, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["spec"]["containers"][0]["command"] == ["sh", "-c", script]
    assert found(applied(answers, finding.repair)) == []


def test_a_pod_that_is_older_than_the_annotation_is_replaced():
    answers = healthy()
    account = answers[SERVICE_ACCOUNTS][0]
    annotations = account["metadata"].pop("annotations")
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    account["metadata"]["annotations"] = annotations
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("pod-older-than-annotation", "no AWS_ROLE_ARN")
    assert found(applied(answers, finding.repair)) == []


@pytest.mark.parametrize("annotation", [ROLE_ARN.replace("my-role", "gone"), "arn:aws:iam::1234:role/x", "my-role"])
def test_a_pod_is_not_made_again_while_the_annotation_names_no_role(annotation):
    """It may work with the role that it has, and would lose it."""
    answers = healthy() | {ROLE.replace("my-role", name): None for name in ("gone", "former")}
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"][KEY] = annotation
    (former,) = (each for each in answers[PODS][0]["spec"]["containers"][0]["env"] if each["name"] == "AWS_ROLE_ARN")
    former["value"] = ROLE_ARN.replace("my-role", "former")
    answers[PROVIDER]["ClientIDList"] = []
    findings = {finding.id: finding for finding in examine(answers).findings}
    repair = findings["pod-older-than-annotation"].repair
    # What it waits for comes first, and so does all else that is wrong.
    assert [*findings][-1] == "pod-older-than-annotation" and len(findings) > 2
    assert all(line.startswith("#") for line in repair.splitlines())
    assert "kubectl delete pod my-pod" in repair


def test_no_pod_of_a_name_is_an_error_and_no_pod_at_all_a_warning():
    answers = healthy() | {PODS: []}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("pod-missing", "error")
    assert found(applied(answers, finding.repair)) == []
    other = a_pod()
    other["spec"]["serviceAccountName"] = "default"
    (finding,) = examine(healthy() | {PODS: [other]}, pod_name="").findings
    assert (finding.id, finding.severity) == ("pod-missing", "warning")
    assert finding.found == "pod my-pod runs as default"


def test_a_pod_that_its_controller_replaces_again_and_again_is_a_note():
    looping = a_pod()
    runner = {"kind": "Runner", "name": "my-pod", "controller": True}
    looping["metadata"]["ownerReferences"] = [runner]
    event = {"reason": "Killing", "count": 9, "involvedObject": {"kind": "Pod", "name": "my-pod"}}
    (finding,) = examine(healthy() | {PODS: [looping], EVENTS: [event]}).findings
    assert (finding.id, finding.severity) == ("pod-replaced-in-a-loop", "note")
    assert found(healthy() | {PODS: [looping], EVENTS: [event | {"count": 1}]}) == []
    # A person who replaces a pod by hand isn't a controller.
    assert found(healthy() | {EVENTS: [event]}) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"status": {"phase": "Running"}}, []),
        ({"status": {"phase": "Pending"}}, ["pod-not-running", "pod-replaced-in-a-loop"]),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:02:00Z"}}, ["pod-replaced-in-a-loop"]),
    ],
    ids=["runs", "does not run", "goes"],
)
def test_deleted_pods_of_before_are_counted_where_the_pod_has_not_settled(changed, expected):
    event = {"reason": "SuccessfulDelete", "count": 9, "involvedObject": {"kind": "Runner", "name": "my-pod"}}
    one = a_pod()
    one["metadata"] |= changed.get("metadata", {})
    one["status"] |= changed.get("status", {})
    assert found(healthy() | {PODS: [one], EVENTS: [event]}) == expected


def test_what_a_pod_loses_is_named_and_shown():
    answers = applying(with_variables(AWS_ROLE_ARN=f"{ROLE_ARN}-of-payments", AWS_REGION="", GREETING="hello"))
    last = examine(answers).findings[-1].repair
    assert last.splitlines()[:-2] == [
        "# The pod my-pod is deleted, and created again from its manifest.",
        "# Its container aws no longer sets AWS_ROLE_ARN and AWS_REGION.",
        "#   -     - name: AWS_ROLE_ARN",
        f"#   -       value: {ROLE_ARN}-of-payments",
        "#   -     - name: AWS_REGION",
        "#   -       value: ''",
    ]


def test_a_pod_that_only_lacks_what_the_webhook_gives_loses_nothing():
    answers = healthy()
    answers[PODS][0]["spec"]["containers"][0]["env"] = []
    del answers[PODS][0]["spec"]["volumes"]
    said, *more = examine(answers).findings[0].repair.splitlines()
    assert said == "# The pod my-pod is deleted, and created again from its manifest."
    assert not any(line.startswith("#") for line in more)


@pytest.mark.parametrize("is_owned", [True, False], ids=["of a Deployment", "of nobody"])
def test_a_pod_that_is_named_and_runs_as_default_is_said_to_get_another_role(is_owned):
    answers = owned([])
    answers["get deployment cart -n default"]["spec"]["template"]["spec"].pop("serviceAccountName")
    answers[PODS][0]["spec"]["serviceAccountName"] = "default"
    if not is_owned:
        del answers[PODS][0]["metadata"]["ownerReferences"]
    (repair,) = [each.repair for each in examine(answers).findings if each.id == "pod-uses-another-service-account"]
    told = repair.splitlines()
    if is_owned:
        assert told[0] == (
            "# deployment/cart runs as default; after this change, its pods run as my-service-account, "
            "with the role of that account:"
        )
    else:
        assert "# It runs as default; the new pod runs as my-service-account, with the role of that account." in told


def deployment(env):
    container = {"name": "aws", "image": "amazon/aws-cli", "env": env}
    spec = {"serviceAccountName": "my-service-account", "containers": [container]}
    template = {"metadata": {"labels": {"app": "cart"}}, "spec": spec}
    return {"metadata": {"name": "cart", "namespace": "default"}, "spec": {"template": template}}


def owned(env):
    """A healthy lab whose pod is made by a Deployment."""
    answers = applying(with_variables(**{each["name"]: each["value"] for each in env}))
    replica_set = {"kind": "ReplicaSet", "name": "cart-1", "controller": True}
    answers[PODS][0]["metadata"]["ownerReferences"] = [replica_set]
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    answers["get replicaset cart-1 -n default"] = {"metadata": {"name": "cart-1", "ownerReferences": above}}
    answers["get deployment cart -n default"] = deployment(env)
    return answers


def test_a_deployment_s_pod_is_corrected_in_the_template():
    (finding,) = examine(owned([{"name": "AWS_PROFILE", "value": "dev"}])).findings
    assert commands(finding.repair) == [
        "kubectl set env deployment/cart -n default -c aws AWS_PROFILE-",
        "kubectl rollout status deployment/cart -n default --timeout=90s",
    ]
    assert finding.repair.splitlines()[:4] == [
        "# Deployment cart: its pods are made again, one after the other.",
        "#   -     env:",
        "#   -     - name: AWS_PROFILE",
        "#   -       value: dev",
    ]


def test_what_changes_in_a_template_is_shown_without_anybody_s_secret():
    env = [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "AWS_PROFILE", "value": "dev"}]
    env += [{"name": name, "value": value} for name, value in KEYS.items()]
    answers = owned(env)
    answers["get deployment cart -n default"]["spec"]["template"]["metadata"]["annotations"] = {KEY: ROLE_ARN}
    # The first one's template is changed by the second one's repair.
    repair = examine(answers).findings[1].repair
    assert {"#   -     - name: AWS_ACCESS_KEY_ID", f"#   -     {KEY}: {ROLE_ARN}"} <= {*repair.splitlines()}
    assert not any(secret in repair for secret in ("hunter2", *KEYS.values()))


def test_a_deployment_whose_template_is_right_is_started_again():
    answers = owned([])
    for container in answers[PODS][0]["spec"]["containers"]:
        container["env"] = []
    del answers[PODS][0]["spec"]["volumes"]
    (finding,) = examine(answers).findings
    assert finding.id == "pod-older-than-annotation"
    assert commands(finding.repair)[0] == "kubectl rollout restart deployment/cart -n default"


def test_a_deployment_s_template_is_patched_where_more_than_variables_is_wrong():
    answers = owned([])
    label = "eks.amazonaws.com/skip-pod-identity-webhook"
    answers["get deployment cart -n default"]["spec"]["template"]["metadata"]["labels"][label] = "true"
    live = answers[PODS][0]
    live["metadata"]["labels"][label] = "true"
    live["spec"].pop("volumes")
    live["spec"]["containers"][0].pop("env")
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    patch = json.loads(shlex.split(commands(finding.repair)[0])[-1])
    assert patch == {"spec": {"template": {"metadata": {"labels": {label: None}}}}}


def test_the_lab_s_own_pod_is_restored_as_it_was_built():
    answers = healthy() | {INLINE: []}
    answers[PODS][0]["status"] = {"phase": "Pending"}
    (finding,) = examine(answers).findings
    delete, apply = commands(finding.repair)
    assert delete == "kubectl delete pod my-pod -n default --grace-period=1"
    assert json.loads(shlex.split(apply)[1]) == pod.build(PARAMETERS)


# Workloads: none of them is left with a pod beside it that nobody owns.


def workload(name="cart", *, account="my-service-account", replicas=1, kind="Deployment", app="cart"):
    """A Deployment as a list has it."""
    container = {"name": "aws", "image": "amazon/aws-cli"}
    spec = {"containers": [container], **({"serviceAccountName": account} if account else {})}
    labels = {"app": app}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def without_pods(*workloads):
    return healthy() | {PODS: [], DEPLOYMENTS: list(workloads)}


def test_a_deployment_that_names_no_service_account_is_patched_itself():
    (finding,) = examine(without_pods(workload("web", account="", app="web")), pod_name="").findings
    assert (finding.id, finding.found) == ("pod-missing", "deployment/web without serviceAccountName")
    said, (patch, status) = finding.repair.splitlines()[0], commands(finding.repair)
    assert said.startswith("# deployment/web runs as default; after this change, its pods run as my-service-account")
    words = shlex.split(patch)
    assert words[:3] == ["kubectl", "patch", "deployment/web"]
    assert json.loads(words[-1]) == {"spec": {"template": {"spec": {"serviceAccountName": "my-service-account"}}}}
    assert status.startswith("kubectl rollout status deployment/web")


@pytest.mark.parametrize(
    ("mark", "manager"),
    [
        ({"annotations": {"meta.helm.sh/release-name": "web"}}, "Helm"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "web:apps/Deployment:default/web"}}, "Argo CD"),
        ({"labels": {"app.kubernetes.io/managed-by": "pulumi"}}, "pulumi"),
    ],
)
def test_who_else_writes_a_deployment_is_said_beside_its_patch(mark, manager):
    managed = workload("web", account="", app="web")
    managed["metadata"] |= mark
    (finding,) = examine(without_pods(managed), pod_name="").findings
    said = f"# {manager} manages this object: change its source, too, or {manager} may undo this."
    assert said in finding.repair.splitlines()


@pytest.mark.parametrize("account", ["", "my-service-account"])
def test_access_keys_in_a_deployment_without_pods_show_at_once(account):
    bare = workload("web", account=account, app="web")
    (container,) = bare["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": name, "value": value} for name, value in {**KEYS, "GREETING": "hello"}.items()]
    findings = {finding.id: finding for finding in examine(without_pods(bare), pod_name="").findings}
    assert set(findings) == {"pod-missing", "pod-static-keys"}
    first, keys = findings["pod-missing"], findings["pod-static-keys"]
    assert keys.severity == "warning"
    assert keys.found.startswith("deployment/web, container aws: AWS_ACCESS_KEY_ID (env)")
    change = commands(keys.repair)[0]
    assert " deployment/web " in change
    if not account:
        assert next(iter(findings)) == "pod-missing"
        (changed,) = json.loads(shlex.split(change)[-1])["spec"]["template"]["spec"]["containers"]
        assert changed["env"] == [{"name": "GREETING", "value": "hello"}]
    assert not any(secret in f"{first}{keys}" for secret in KEYS.values())


def test_of_several_the_one_that_is_called_like_the_service_account_is_meant():
    named = workload("web", account="", app="my-service-account")
    (finding,) = examine(without_pods(workload("queue", account=""), named), pod_name="").findings
    assert finding.found == "deployment/web without serviceAccountName"


BARE = [workload("web", account="", app="web"), workload("queue", account="default", app="queue")]
OTHER = {"metadata": {"name": "other", "namespace": "default"}}


@pytest.mark.parametrize(
    ("workloads", "accounts", "names"),
    [
        (BARE, [], "deployment/web, deployment/queue"),
        ([BARE[0], workload("api", account="api")], [], "deployment/web"),
        (BARE[:1], [OTHER], "deployment/web"),
    ],
    ids=["two", "beside another's", "beside another service account"],
)
def test_a_deployment_that_may_be_somebody_else_s_is_asked_about_and_no_shell_runs_the_command(
    workloads, accounts, names
):
    answers = without_pods(*workloads)
    answers[SERVICE_ACCOUNTS] += accounts
    (finding,) = examine(answers, pod_name="").findings
    said, command = finding.repair.splitlines()
    assert said.startswith("# put the workload that should have the role in place of <WORKLOAD>")
    assert said.endswith(names)
    assert command.startswith("kubectl patch <WORKLOAD> -n default")
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode != 0


def test_a_deployment_with_no_replicas_is_scaled_and_no_pod_is_made_beside_it():
    (finding,) = examine(without_pods(workload(replicas=0)), pod_name="").findings
    assert (finding.id, finding.severity) == ("pod-missing", "warning")
    assert finding.found == "deployment/cart has replicas: 0"
    assert finding.repair.splitlines()[1:] == ["kubectl scale deployment/cart -n default --replicas=1"]
    (finding,) = examine(without_pods(workload(replicas=0)), pod_name="cart-5f6d8b9c7d-x2x4b").findings
    assert finding.found == "deployment/cart has replicas: 0"
    assert "echo" not in finding.repair


@pytest.mark.parametrize("kind", [CRON_JOBS, JOBS])
def test_where_a_job_makes_the_pods_none_is_made_beside_it(kind):
    template = {"spec": {"serviceAccountName": PARAMETERS.service_account, "containers": []}}
    spec = {"template": template}
    if kind == CRON_JOBS:
        spec = {"schedule": "0 3 * * *", "jobTemplate": {"spec": spec}}
    called = "cronjob/cart" if kind == CRON_JOBS else "job/cart"
    answers = healthy() | {PODS: [], kind: [{"metadata": {"name": "cart"}, "spec": spec}]}
    diagnosis = examine(answers, pod_name="")
    (finding,) = diagnosis.findings
    assert (finding.id, finding.severity, diagnosis.exit_code) == ("pod-missing", "note", 0)
    assert finding.found == f"{called} without a pod now"
    assert commands(finding.repair) == []
    # Of another service account, it says nothing.
    template["spec"]["serviceAccountName"] = "web"
    (finding,) = examine(answers, pod_name="").findings
    assert (finding.severity, len(commands(finding.repair))) == ("warning", 1)


@pytest.mark.parametrize("pod_name", ["", "my-pod"])
def test_a_caller_who_may_not_list_deployments_makes_no_pod_beside_one(pod_name):
    answers = healthy() | {PODS: []}
    del answers[DEPLOYMENTS]
    (finding,) = examine(answers, pod_name=pod_name).findings
    assert finding.id == "pod-missing"
    assert [line for line in finding.repair.splitlines() if not line.startswith("#")] == []


def test_a_deployment_that_could_not_make_its_pod_says_why():
    answers = without_pods(workload())
    message = 'Error creating: pods "cart-1-" is forbidden: exceeded quota: small'
    involved = {"kind": "ReplicaSet", "name": "cart-1"}
    answers[EVENTS] = [{"reason": "FailedCreate", "message": message, "involvedObject": involved}]
    (finding,) = examine(answers, pod_name="").findings
    assert (finding.id, finding.found) == ("pod-missing", f"deployment/cart: {message}")
    assert "echo" not in finding.repair


def test_a_pod_that_was_replaced_is_not_made_and_its_successor_is_named():
    answers = owned([])
    answers[DEPLOYMENTS] = [workload()]
    answers[PODS][0]["metadata"] |= {"name": "cart-7b4f9c6d5f-bbbbb", "labels": {"app": "cart"}}
    (finding,) = examine(answers, pod_name="cart-5f6d8b9c7d-x2x4b").findings
    assert finding.found == "no such pod; deployment/cart has other pods: cart-7b4f9c6d5f-bbbbb"
    assert [line for line in finding.repair.splitlines() if not line.startswith("#")] == []
    assert "--pod cart-7b4f9c6d5f-bbbbb" in finding.repair
    # Where nobody knows any longer who made it, it is not made either.
    (finding,) = examine(healthy(), pod_name="shop-5f6d8b9c7d-x2x4b").findings
    assert finding.repair.splitlines()[-1] == "# kubectl get pods -n default"


def replica_set_pod(hashed, at, *, has_role):
    """A Deployment's pod of the ReplicaSet with this hash."""
    live = a_pod()
    owner = {"kind": "ReplicaSet", "name": f"cart-{hashed}", "controller": True}
    labels = {"app": "cart", "pod-template-hash": hashed}
    live["metadata"] |= {"name": f"cart-{hashed}-x", "creationTimestamp": at, "ownerReferences": [owner]}
    live["metadata"]["labels"] = labels
    if not has_role:
        live["spec"]["containers"][0].pop("env")
        live["spec"]["volumes"] = []
    return live


def rollout(*, new_has_role):
    answers = healthy()
    old = replica_set_pod("old", "2026-01-01T00:00:10Z", has_role=False)
    new = replica_set_pod("new", "2026-01-01T00:07:00Z", has_role=new_has_role)
    answers[PODS] = [old, new]
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    for hashed in ("old", "new"):
        metadata = {"name": f"cart-{hashed}", "ownerReferences": above}
        answers[f"get replicaset cart-{hashed} -n default"] = {"metadata": metadata}
    answers["get deployment cart -n default"] = deployment([])
    return answers


def examine_all(answers):
    def evidence(name):
        return Evidence(PARAMETERS, CONNECTION, pod_name=name, probe=False, reads=Reads(answers))

    return doctor.examination.examine_pods(evidence)


def test_in_a_rollout_the_old_pods_are_listed_and_wait_for_it():
    diagnosis = examine_all(rollout(new_has_role=True))
    assert diagnosis.pods == ["cart-new-x", "cart-old-x"]
    (finding,) = diagnosis.findings
    assert finding.id == "pod-older-than-annotation"
    commands = [line for line in finding.repair.splitlines() if not line.startswith("#")]
    assert commands == ["kubectl rollout status deployment/cart -n default --timeout=90s"]


def test_two_pods_of_one_deployment_that_lack_the_same_are_one_finding_and_one_restart():
    (finding,) = examine_all(rollout(new_has_role=False)).findings
    assert finding.repair.count("rollout restart") == 1


def test_a_pod_that_is_about_to_go_is_not_looked_at():
    answers = rollout(new_has_role=True)
    answers[PODS][0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:08:00Z"
    diagnosis = examine_all(answers)
    assert (diagnosis.pods, diagnosis.findings) == (["cart-new-x"], [])


def commands_of(diagnosis):
    return [line for line in diagnosis.script().splitlines() if line and not line.startswith("#")]


def test_two_findings_of_one_deployment_restart_it_once_and_after_the_webhook():
    answers = rollout(new_has_role=False)
    answers[PODS] = answers[PODS][1:]
    answers[WEBHOOK] = None
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    diagnosis = examine(answers, pod_name="cart-new-x")
    assert [finding.id for finding in diagnosis.findings] == ["webhook-missing", "service-account-annotation-missing"]
    assert [line.partition(" -n ")[0] for line in commands_of(diagnosis)] == [
        "labkit reset",
        "kubectl annotate serviceaccount my-service-account",
        "kubectl rollout restart deployment/cart",
        "kubectl rollout status deployment/cart",
    ]


def test_a_pod_is_made_again_after_what_the_webhook_goes_by():
    answers = applying(lambda m: m["spec"].pop("serviceAccountName"))
    answers[WEBHOOK] = None
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["pod-uses-another-service-account", "webhook-missing"]
    commands = commands_of(diagnosis)
    assert [line.split()[0:3] for line in commands][:2] == [["labkit", "reset"], ["kubectl", "delete", "pod"]]
    assert found(applied(answers, "\n".join(commands))) == []


def test_a_deployment_is_started_after_its_service_account_is_annotated():
    answers = without_pods(workload(replicas=0))
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    commands = commands_of(examine(answers, pod_name=""))
    assert [line.split()[1] for line in commands] == ["annotate", "scale"]


UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient memory."


@pytest.mark.parametrize(
    ("conditions", "events", "says"),
    [
        (
            [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNSCHEDULABLE}],
            [],
            f"Pending: Unschedulable: {UNSCHEDULABLE}",
        ),
        (
            [],
            [
                {"reason": "FailedScheduling", "message": "older", "lastTimestamp": "2026-01-01T00:01:00Z"},
                {"reason": "FailedScheduling", "message": UNSCHEDULABLE, "lastTimestamp": "2026-01-01T00:02:00Z"},
            ],
            f"Pending: FailedScheduling: {UNSCHEDULABLE}",
        ),
    ],
    ids=["condition", "event"],
)
def test_a_pending_pod_quotes_the_scheduler_and_is_not_made_again(conditions, events, says):
    answers = healthy()
    answers[PODS][0]["status"] = {"phase": "Pending", "conditions": conditions}
    answers[EVENTS] = [event | {"involvedObject": {"kind": "Pod", "name": "my-pod"}} for event in events]
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("pod-not-running", says)
    assert finding.repair.splitlines()[-1] == "# kubectl describe pod my-pod -n default"


def test_keys_in_a_config_map_that_another_pod_uses_are_left_out_of_this_pod_alone():
    answers = applying(lambda m: m["spec"]["containers"][0].update(envFrom=[{"configMapRef": {"name": "settings"}}]))
    of_webhook = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/web", "AWS_REGION": "eu-west-1"}
    settings = {"data": {**KEYS, **of_webhook, "GREETING": "hello", "no-variable": "x"}}
    others = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"serviceAccountName": "web"}}
    others["spec"]["containers"] = [{"name": "web", "envFrom": [{"configMapRef": {"name": "settings"}}]}]
    answers |= {"get configmap settings -n default": settings, PODS: [*answers[PODS], others]}
    (finding,) = examine(answers).findings
    assert finding.id == "pod-static-keys"
    assert "# ConfigMap settings stays: pod web may need it." in finding.repair
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))
    manifest = json.loads(shlex.split(commands(finding.repair)[-1])[1])
    (container,) = manifest["spec"]["containers"]
    reference = {"configMapKeyRef": {"name": "settings", "key": "GREETING"}}
    assert container["env"] == [{"name": "GREETING", "valueFrom": reference}]
    assert "envFrom" not in container
    assert found(applied(answers, finding.repair)) == []


def another_team_s(kind):
    """A workload without a pod, whose pods would take the ConfigMap as another service account."""
    spec = {"serviceAccountName": "web", "containers": [{"name": "web"}]}
    with_sources({"spec": spec})
    job = {"template": {"spec": spec}}
    spec = {"jobTemplate": {"spec": job}} if kind == "cronjob" else {"replicas": 0, **job}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


LISTS = {
    DEPLOYMENTS: "deployment",
    STATEFUL_SETS: "statefulset",
    DAEMON_SETS: "daemonset",
    CRON_JOBS: "cronjob",
    JOBS: "job",
    REPLICA_SETS: "replicaset",
}


@pytest.mark.parametrize(("call", "kind"), LISTS.items(), ids=LISTS.values())
def test_keys_in_a_config_map_that_a_workload_without_pods_uses_stay(call, kind):
    answers = applying(with_sources, KEYS) | {call: [another_team_s(kind)]}
    (finding,) = examine(answers).findings
    assert finding.id == "pod-static-keys"
    assert f"# ConfigMap settings stays: {kind}/web may need it." in finding.repair
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))
    assert found(applied(answers, finding.repair)) == []


@pytest.mark.parametrize("call", LISTS)
def test_keys_in_a_config_map_stay_where_workloads_cannot_be_listed(call):
    answers = applying(with_sources, KEYS)
    del answers[call]
    (finding,) = examine(answers).findings
    assert "# ConfigMap settings stays: any of the workloads (the doctor could not list them)" in finding.repair
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))


def test_a_config_map_of_this_service_account_alone_loses_the_keys_and_it_is_said():
    (finding,) = examine(applying(with_sources, KEYS)).findings
    said, who, patch = finding.repair.splitlines()[:3]
    assert said == "# ConfigMap settings: the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are deleted from it."
    assert who == "# No pod or workload of another service account uses the ConfigMap."
    assert json.loads(shlex.split(patch)[-1]) == {"data": dict.fromkeys(KEYS)}


def test_an_aws_config_that_a_workload_without_pods_uses_is_not_shortened():
    answers = applying(with_config, {"config": LONG_SESSION}) | {DEPLOYMENTS: [another_team_s("deployment")]}
    (finding,) = examine(answers).findings
    assert "# The ConfigMap settings is not changed: deployment/web may use it as well." in finding.repair
    assert commands(finding.repair) == []


# A pod's name that is misspelt.


def in_shop(answers):
    """The answers, of a service account cart in the namespace shop that is not the notebooks' own."""
    text = json.dumps(answers).replace("-n default", "-n shop").replace('"namespace": "default"', '"namespace": "shop"')
    return json.loads(text.replace("my-service-account", "cart").replace("my-pod", "cart-one"))


def diagnosed(answers, pod):
    return doctor.diagnose(
        namespace="shop", service_account="cart", connection=CONNECTION, pod=pod, reads=Reads(in_shop(answers))
    )


@pytest.mark.parametrize("pod_name", ["cart-nope", "cart-5f6d8b9c7d-x2x4b", "x"])
def test_a_misspelt_pod_is_asked_about_and_no_pod_is_made(pod_name):
    with pytest.raises(LabError) as refused:
        diagnosed(healthy(), pod_name)
    assert refused.value.what == f"shop/{pod_name}: no such pod; did you mean cart-one?"
    assert refused.value.next == "labkit doctor -n shop -s cart --pod cart-one"


def test_a_misspelt_pod_of_a_service_account_without_pods_is_like_no_other():
    with pytest.raises(LabError) as refused:
        diagnosed(healthy() | {PODS: []}, "cart-nope")
    assert refused.value.what == "shop/cart-nope: no such pod."
    assert refused.value.next == "kubectl get pods -n shop"


def test_a_pod_that_is_there_is_not_misspelt():
    assert diagnosed(healthy(), "cart-one").pods == ["cart-one"]


def unread(answers, call):
    return {each: answer for each, answer in answers.items() if each != call}


OF_JOB = a_pod()
OF_JOB["metadata"] |= {"name": "nightly-q8w2z", "generateName": "nightly-"}


@pytest.mark.parametrize(
    ("answers", "pod_name"),
    [
        (healthy() | {DEPLOYMENTS: [workload(replicas=0)]}, "cart-5f6d8b9c7d-x2x4b"),
        (healthy() | {PODS: [OF_JOB]}, "nightly-x2x4b"),
        (unread(healthy(), DEPLOYMENTS), "cart-5f6d8b9c7d-x2x4b"),
    ],
    ids=["workload", "newer pod of the same owner", "workloads unknown"],
)
def test_a_pod_that_may_have_been_replaced_is_missing_as_before(answers, pod_name):
    findings = diagnosed(answers, pod_name).findings
    (missing,) = [finding for finding in findings if finding.id == "pod-missing"]
    assert commands(missing.repair) == [] or "scale" in missing.repair
    assert "echo" not in missing.repair
