"""The pod and its containers: each fault gives one finding, and its repair mends it."""

import base64
import json
import subprocess

import pytest

from labkit.cli import doctor_repair
from labkit.steps import pod
from tests.doctor.applying import applied, made
from tests.doctor.pods import (
    KEY,
    KEYS,
    LONG_SESSION,
    applying,
    examine,
    found,
    owned,
    with_config,
    with_sources,
    with_variables,
)
from tests.doctor.recording import (
    EVENTS,
    ISSUER,
    PARAMETERS,
    PODS,
    PROVIDER,
    PROVIDERS,
    ROLE,
    ROLE_ARN,
    SERVICE_ACCOUNTS,
    TOKEN_FILE,
    WEBHOOK,
    a_pod,
    healthy,
)
from tests.doctor.repairing import commands

REGIONS = f"ec2:DescribeRegions ({ROLE_ARN.split(':')[4]})"


def with_key_of_secret(manifest):
    source = {"secretKeyRef": {"name": "keys", "key": "id"}}
    manifest["spec"]["containers"][0]["env"] = [{"name": "AWS_ACCESS_KEY_ID", "valueFrom": source}]


def with_identity(role_arn, file=TOKEN_FILE):
    return with_variables(AWS_ROLE_ARN=role_arn, AWS_WEB_IDENTITY_TOKEN_FILE=file)


def projected(audience="sts.amazonaws.com"):
    return {"projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "token"}}]}}


def with_own_token(manifest, volume, role_arn=ROLE_ARN):
    """Let the manifest name the role itself, and mount a token from a volume of its own."""
    manifest["spec"]["volumes"] = [{"name": "own", **volume}]
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "own", "mountPath": "/etc/own"}]
    with_identity(role_arn, "/etc/own/token")(manifest)


def with_token_of(kind):
    source = {"ConfigMap": {"configMap": {"name": "settings"}}, "Secret": {"secret": {"secretName": "settings"}}}[kind]
    return lambda manifest: with_own_token(manifest, source)


def applying_by_hand(role_arn):
    """A pod that names its role itself, as the annotation in which kubectl notes its manifest shows."""
    answers = applying(lambda manifest: with_own_token(manifest, projected(), role_arn))
    note = {"spec": {"containers": [{"name": "aws", "env": [{"name": "AWS_ROLE_ARN", "value": role_arn}]}]}}
    live = answers[PODS][0]
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(note)}
    # In this order of the variables, the webhook could also have added the role.
    live["spec"]["containers"][0]["env"].reverse()
    return answers


def copied_token(**claims):
    claims = {"iss": ISSUER, "sub": PARAMETERS.subject, "aud": ["sts.amazonaws.com"], **claims}
    parts = ({"alg": "RS256", "kid": "an-old-one"}, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)


CHAINED = "[profile a]\nrole_arn = arn:aws:iam::123456789012:role/b\nsource_profile = default\nduration_seconds=3601\n"

FAULTS = {
    "pod-static-keys": [applying(with_variables(**KEYS)), applying(with_sources, KEYS), applying(with_key_of_secret)],
    "pod-aws-profile": [applying(with_variables(AWS_PROFILE="dev")), applying(with_sources, {"AWS_PROFILE": "dev"}),
                        applying(lambda m: (with_config(m), with_variables(AWS_PROFILE="dev")(m)),
            {"config": "[profile prod]\n"})],
    "pod-uses-the-api-server-token": [applying(with_variables(AWS_ROLE_ARN=ROLE_ARN,
            AWS_WEB_IDENTITY_TOKEN_FILE="/var/run/secrets/kubernetes.io/serviceaccount/token"))],
    "pod-token-variable-missing": [applying(with_variables(AWS_ROLE_ARN=ROLE_ARN))],
    "pod-role-variable-missing": [applying(with_variables(AWS_WEB_IDENTITY_TOKEN_FILE=TOKEN_FILE))],
    "pod-variables-empty": [applying(with_variables(AWS_ROLE_ARN="", AWS_WEB_IDENTITY_TOKEN_FILE="")),
        applying(with_variables(AWS_ROLE_ARN=""))],
    "pod-token-file-missing": [applying(with_variables(AWS_ROLE_ARN=ROLE_ARN,
            AWS_WEB_IDENTITY_TOKEN_FILE="/var/run/aws/token"))],
    "pod-role-set-by-hand": [applying(with_identity(f"{ROLE_ARN}-of-payments")),
        applying_by_hand(f"{ROLE_ARN}-of-payments")],
    "pod-region-empty": [applying(with_variables(AWS_REGION="")),
        applying(with_variables(AWS_DEFAULT_REGION="", AWS_REGION="us-east-1"))],
    "token-copied": [applying(with_token_of("ConfigMap"), {"token": copied_token(exp=1735776000)}),
                     applying(with_token_of("ConfigMap"), {"token": f"{copied_token(exp=1735776000)}\n"})],
    "token-malformed": [applying(with_token_of("ConfigMap"), {"token": "11:11:49 EOF"})],
    "pod-role-session-name-invalid": [applying(with_variables(AWS_ROLE_SESSION_NAME="n" * 65)),
        applying(with_variables(AWS_ROLE_SESSION_NAME="the reader")),
        applying(with_sources, {"AWS_ROLE_SESSION_NAME": "x"})],
    "role-session-too-long": [applying(with_config, {"config": LONG_SESSION})],
    "pod-sts-endpoint-of-another-region": [
        applying(with_variables(AWS_ENDPOINT_URL_STS="https://sts.eu-west-1.amazonaws.com")),
        applying(with_variables(AWS_ENDPOINT_URL="https://sts.amazonaws.com", AWS_REGION="eu-west-1"))
        | {REGIONS: [{"RegionName": "eu-west-1", "OptInStatus": "opt-in-not-required"}]},
    ],
    "region-not-activated": [applying(with_variables(AWS_REGION="af-south-1")) | {REGIONS: [{"RegionName": "af-south-1",
            "OptInStatus": "not-opted-in"}]}, applying(with_variables(AWS_REGION="us-esat-1")) | {REGIONS: []}],
    "pod-uses-another-service-account": [applying(lambda m: m["spec"].pop("serviceAccountName"))],
    "pod-not-running": [healthy() | {PODS: [a_pod() | {"status": {"phase": "Pending"}}]},
                        healthy() | {PODS: [a_pod() | {"status": {"phase": "Pending",
            "containerStatuses": [{"name": "aws", "state": {"waiting": {"reason": "ErrImagePull"}}}]}}]}],
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
}  # fmt: skip


@pytest.mark.parametrize(("id", "answers"), [(id, answers) for id, each in FAULTS.items() for answers in each])
def test_a_fault_of_the_pod_gives_one_finding_and_its_repair_mends_it(id, answers):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert finding.severity == "error"
    assert finding.expected != finding.found
    assert found(applied(answers, finding.repair)) == []


PROXY = {"HTTPS_PROXY": "http://somebody:hunter2@proxy.example.com:3128"}


@pytest.mark.parametrize(("id", "answers", "says"), [
    ("pod-proxy-without-no-proxy", applying(with_variables(**PROXY)), "no NO_PROXY"),
    ("pod-proxy-without-no-proxy", applying(with_sources, {**PROXY, "NO_PROXY": "localhost,.example.com"}),
     "(ConfigMap settings), NO_PROXY=localhost,.example.com"),
    ("token-copied", applying(with_token_of("ConfigMap"), {"token": copied_token(exp=4102444800)}), "good until 21"),
    ("token-copied", applying(with_token_of("Secret")), "(Secret settings)"),
])  # fmt: skip
def test_a_setting_that_may_work_is_only_a_warning_without_a_command(id, answers, says):
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == (id, "warning")
    assert says in finding.found
    assert "hunter2" not in f"{finding}"
    assert all(line.startswith("#") for line in finding.repair.splitlines())


@pytest.mark.parametrize("variables", [
    {"NO_PROXY": "sts.us-east-1.amazonaws.com"},
    {"no_proxy": "10.0.0.0/8, .amazonaws.com"},
    {"NO_PROXY": "*"},
    {"AWS_ENDPOINT_URL_STS": "http://sts.test:4566"},
])  # fmt: skip
def test_a_proxy_with_an_exception_for_sts_is_right(variables):
    assert found(applying(with_variables(**PROXY, **variables))) == []


def test_a_pod_that_names_its_role_itself_needs_no_annotation():
    answers = applying(lambda manifest: with_own_token(manifest, projected()))
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    live = answers[PODS][0]["spec"]
    live["containers"][0]["env"] = live["containers"][0]["env"][:2]  # as if no webhook had changed the pod
    live["volumes"] = [volume for volume in live["volumes"] if volume["name"] == "own"]
    diagnosis = examine(answers)
    assert [(each.id, each.severity) for each in diagnosis.findings] == [("pod-names-its-role", "note")]
    assert (diagnosis.ok, diagnosis.exit_code, diagnosis.role_arn) == (True, 0, ROLE_ARN)
    # The pod doesn't need the webhook, so neither an opt-out nor a missing webhook is an error.
    answers[PODS][0]["metadata"]["labels"]["eks.amazonaws.com/skip-pod-identity-webhook"] = "true"
    assert found(answers) == ["pod-names-its-role"]
    without = examine(answers | {WEBHOOK: None})
    assert {each.id for each in without.findings} == {"webhook-missing", "pod-names-its-role"}
    assert without.exit_code == 0
    # If the role doesn't admit the service account, that's more than a note.
    answers[ROLE]["AssumeRolePolicyDocument"]["Statement"][0]["Action"] = "sts:AssumeRole"
    assert {"trust-policy-action-wrong", "service-account-annotation-missing"} <= set(found(answers))


@pytest.mark.parametrize(("entry", "seen"), [
    ({"value": "my-role"}, []),
    ({"value": "$(OTHER)"}, []),
    ({"value": "other"}, ["pod-role-set-by-hand"]),
    # Only the node can resolve this reference.
    ({"valueFrom": {"secretKeyRef": {"name": "role", "key": "name"}}}, []),
])  # fmt: skip
def test_the_doctor_resolves_references_to_other_variables_in_the_roles_arn(entry, seen):
    def with_references(manifest):
        with_own_token(manifest, projected(), ROLE_ARN.replace("my-role", "$(NAME)"))
        env = manifest["spec"]["containers"][0]["env"]
        env[:0] = [{"name": "OTHER", "value": "my-role"}, {"name": "NAME", **entry}]

    assert [each for each in found(applying(with_references)) if each != "pod-names-its-role"] == seen


@pytest.mark.parametrize("text", ["$(LATER)", "$$(NAME)"])
def test_a_reference_that_kubernetes_leaves_unresolved_makes_the_roles_arn_wrong(text):
    def with_reference(manifest):
        with_own_token(manifest, projected(), ROLE_ARN.replace("my-role", text))
        env = manifest["spec"]["containers"][0]["env"]
        env[:] = [{"name": "NAME", "value": "my-role"}, *env, {"name": "LATER", "value": "my-role"}]

    (finding,) = examine(applying(with_reference)).findings
    assert finding.id == "pod-role-set-by-hand"
    assert finding.found.endswith(f"{ROLE_ARN.replace('my-role', text.replace('$$', '$'))} (env of the manifest)")


def test_the_repair_corrects_the_audience_of_a_token_volume_in_the_manifest():
    answers = applying(lambda manifest: with_own_token(manifest, projected("vault")))
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("token-audience-mismatch", "vault")
    assert "annotate" not in finding.repair
    after = applied(answers, finding.repair)
    (own,) = [volume for volume in after[PODS][0]["spec"]["volumes"] if volume["name"] == "own"]
    assert own["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "sts.amazonaws.com"
    assert (found(after), examine(after).exit_code) == (["pod-names-its-role"], 0)


def test_the_repair_keeps_the_token_in_a_volume_that_another_container_uses():
    """The other container may log in to Vault with that token."""

    def with_vault(manifest):
        with_own_token(manifest, projected("vault"))
        mounts = manifest["spec"]["containers"][0]["volumeMounts"]
        manifest["spec"]["containers"].append({"name": "vault", "image": "vault", "volumeMounts": [*mounts]})

    answers = applying(with_vault)
    (finding,) = [each for each in examine(answers).findings if each.id == "token-audience-mismatch"]
    assert finding.repair.splitlines()[0] == (
        "# The volume own keeps its token for vault: other containers may need it (vault)."
    )
    after = applied(answers, finding.repair)
    (own,) = [volume for volume in after[PODS][0]["spec"]["volumes"] if volume["name"] == "own"]
    tokens = [source["serviceAccountToken"] for source in own["projected"]["sources"]]
    assert [(token["audience"], token["path"]) for token in tokens] == [
        ("vault", "token"),
        ("sts.amazonaws.com", "token-for-sts"),
    ]
    assert "token-audience-mismatch" not in found(after)


def test_a_wrong_token_audience_and_a_missing_provider_are_both_found():
    answers = applying(lambda manifest: with_own_token(manifest, projected("vault"))) | {PROVIDERS: [], PROVIDER: None}
    assert set(found(answers)) == {"oidc-provider-missing", "token-audience-mismatch"}


def test_several_faults_of_one_pod_are_all_found_and_their_repairs_mend_them():
    answers = applying(with_variables(AWS_PROFILE="dev", AWS_ROLE_ARN="", **KEYS))
    findings = examine(answers).findings
    assert sorted(finding.id for finding in findings) == ["pod-aws-profile", "pod-static-keys", "pod-variables-empty"]
    for finding in findings:
        answers = applied(answers, finding.repair)
    assert found(answers) == []


def test_the_finding_names_the_container_that_has_the_fault():
    def with_sidecar(manifest):
        sidecar = {"name": "proxy", "image": "proxy", "env": [{"name": "AWS_PROFILE", "value": "dev"}]}
        manifest["spec"]["containers"].append(sidecar)

    (finding,) = examine(applying(with_sidecar)).findings
    assert finding.found == "container proxy: AWS_PROFILE=dev"


def test_the_doctor_prints_no_access_key_and_no_other_secret():
    variables = {**KEYS, "DB_PASSWORD": "hunter2", "GREETING": "hello"}
    (finding,) = examine(applying(with_variables(**variables))).findings
    shown = f"{finding}"
    assert "hello" in finding.repair
    assert not any(secret in shown for secret in ("hunter2", *KEYS.values()))


@pytest.mark.parametrize(("change", "config_map"), [
    (with_variables(AWS_PROFILE="dev", DB_PASSWORD="hunter2"), None),
    (lambda m: (with_sources(m), with_variables(DB_PASSWORD="hunter2")(m)), KEYS),
], ids=["variable", "ConfigMap"])  # fmt: skip
def test_the_repair_does_not_recreate_a_pod_that_would_lose_hidden_values(change, config_map):
    (finding,) = examine(applying(change, config_map)).findings
    lines = finding.repair.splitlines()
    assert lines[:2] == [
        "# Do not run the lines below: the pod my-pod would lose values that are not shown (DB_PASSWORD).",
        "# The lines only show what to change. The author of the original manifest has the values, and can change it:",
    ]
    assert "#   kubectl delete pod my-pod -n default --grace-period=1 &&" in lines
    assert "NOT-SHOWN" in lines[-1]
    assert commands(finding.repair) == []
    assert doctor_repair.why_not_run(finding.repair)


def test_a_secret_in_env_from_is_not_read_and_is_listed_as_unread():
    def with_secret(manifest):
        manifest["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "keys"}}]

    diagnosis = examine(applying(with_secret))
    assert not diagnosis.findings
    assert "get secret keys -n default" in [unread.call for unread in diagnosis.unread]


def test_the_first_line_names_the_unread_secret_even_if_there_is_a_note():
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


@pytest.mark.parametrize("answers", [
    applying(lambda m: (with_config(m), with_variables(AWS_PROFILE="dev")(m)), {"config": "[profile dev]\n"}),
    applying(with_config, {"config": LONG_SESSION.replace("7200", "3600")}),
    applying(with_variables(AWS_ROLE_SESSION_NAME="reader@cart")),
    applying(with_variables(AWS_ENDPOINT_URL_STS="https://sts.us-east-1.amazonaws.com")),
    applying(with_variables(AWS_ENDPOINT_URL="http://127.0.0.1:4566")),
    healthy() | {PODS: [a_pod() | {"status": {"phase": "Succeeded"}}]},
])  # fmt: skip
def test_unusual_settings_that_work_are_not_reported(answers):
    assert found(answers) == []


def test_a_wrong_token_audience_is_found_even_if_no_container_uses_the_token():
    answers = healthy()
    spec = answers[PODS][0]["spec"]
    spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "vault"
    spec["containers"][0]["env"] = []
    (finding,) = [each for each in examine(answers).findings if each.id == "token-audience-mismatch"]
    assert (finding.expected, finding.found) == ("sts.amazonaws.com", "vault")


def test_a_chained_session_of_over_an_hour_is_too_long_whatever_the_role_allows():
    answers = applying(with_config, {"config": CHAINED})
    answers[ROLE]["MaxSessionDuration"] = 43200
    assert found(answers) == ["role-session-too-long"]


@pytest.mark.zsh
@pytest.mark.parametrize("program", ["bash", "zsh", "sh"])
def test_the_recreated_pod_runs_the_same_command_whichever_shell_runs_the_repair(program):
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


def test_the_repair_replaces_a_pod_that_is_older_than_the_annotation():
    answers = healthy()
    account = answers[SERVICE_ACCOUNTS][0]
    annotations = account["metadata"].pop("annotations")
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    account["metadata"]["annotations"] = annotations
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("pod-older-than-annotation", "no AWS_ROLE_ARN")
    assert found(applied(answers, finding.repair)) == []


@pytest.mark.parametrize("annotation", [ROLE_ARN.replace("my-role", "gone"), "arn:aws:iam::1234:role/x", "my-role"])
def test_the_repair_does_not_recreate_a_pod_while_the_annotation_names_no_role(annotation):
    """The pod may work with the role that it has, and a new pod would lose that role."""
    answers = healthy() | {ROLE.replace("my-role", name): None for name in ("gone", "former")}
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"][KEY] = annotation
    (former,) = (each for each in answers[PODS][0]["spec"]["containers"][0]["env"] if each["name"] == "AWS_ROLE_ARN")
    former["value"] = ROLE_ARN.replace("my-role", "former")
    answers[PROVIDER]["ClientIDList"] = []
    findings = {finding.id: finding for finding in examine(answers).findings}
    repair = findings["pod-older-than-annotation"].repair
    # This repair waits for the others, so their findings come first.
    assert [*findings][-1] == "pod-older-than-annotation" and len(findings) > 2
    assert all(line.startswith("#") for line in repair.splitlines())
    assert "kubectl delete pod my-pod" in repair


def test_the_repair_shows_the_settings_that_a_pod_loses():
    answers = applying(with_variables(AWS_ROLE_ARN=f"{ROLE_ARN}-of-payments", AWS_REGION="", GREETING="hello"))
    last = examine(answers).findings[-1].repair
    assert [line for line in last.splitlines() if line.startswith("#")] == [
        "# This deletes the pod my-pod, and creates it again from its manifest.",
        "# In the new pod, the container aws no longer sets AWS_ROLE_ARN and AWS_REGION.",
        "#   -     - name: AWS_ROLE_ARN",
        f"#   -       value: {ROLE_ARN}-of-payments",
        "#   -     - name: AWS_REGION",
        "#   -       value: ''",
    ]


def test_the_repair_lists_no_loss_if_a_pod_only_lacks_the_webhooks_additions():
    answers = healthy()
    answers[PODS][0]["spec"]["containers"][0]["env"] = []
    del answers[PODS][0]["spec"]["volumes"]
    said, *more = examine(answers).findings[0].repair.splitlines()
    assert said == "# This deletes the pod my-pod, and creates it again from its manifest."
    assert not any(line.startswith("#") for line in more)


@pytest.mark.parametrize("is_owned", [True, False], ids=["of a Deployment", "of nobody"])
def test_the_repair_says_that_a_pod_of_default_gets_another_role(is_owned):
    answers = owned([])
    answers["get deployment cart -n default"]["spec"]["template"]["spec"].pop("serviceAccountName")
    answers[PODS][0]["spec"]["serviceAccountName"] = "default"
    if not is_owned:
        del answers[PODS][0]["metadata"]["ownerReferences"]
    (repair,) = [each.repair for each in examine(answers).findings if each.id == "pod-uses-another-service-account"]
    lines = repair.splitlines()
    if is_owned:
        assert lines[0] == (
            "# deployment/cart runs as default; after this change, its pods run as my-service-account, "
            "with the role of that service account:"
        )
    else:
        assert (
            "# The old pod runs as default; the new pod runs as my-service-account, "
            "with the role of that service account." in lines
        )
