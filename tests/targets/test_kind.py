"""The target kind on an existing cluster: the simulator's own API server and node, which know nothing of a lab.

How the cluster joins the lab, and what AWS says about it then. `test_kind_leaving` tests how it leaves.
"""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

import labkit
from labkit import simulator, targets
from labkit.cli import lab as cli
from labkit.cli import up as up_command
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from labkit.simulator import Folder
from labkit.targets import kind
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind.kubeconfig import NoWay
from tests.targets.conftest import changed
from tests.targets.kind_existing import ISSUER, flagged, running, silent

LABKIT = Path(sys.executable).with_name("labkit")
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "irsa.ipynb"


# The cluster joins the lab.


def test_irsa_ipynb_runs_on_an_existing_cluster_and_the_lab_remembers_it(empty, existing, tmp_path):
    done = labkit.run(NOTEBOOK, tmp_path / "out.ipynb", {**existing.parameters, "role_name": "reader"})
    assert done.ok
    assert [":assumed-role/reader/" in done.answers[0]["answer"], "irsa-lab" in done.answers[1]["answer"]] == [
        True,
        True,
    ]
    assert ISSUER in (tmp_path / "out.ipynb").read_text()
    with labkit.Lab.open(target="kind", role_name="reader") as lab:
        assert not lab.diagnose().findings
    # Without a kubeconfig: the lab remembers the cluster.
    again = labkit.run(NOTEBOOK, tmp_path / "again.ipynb", {"target": "kind", "role_name": "reader"})
    assert again.ok
    assert again.answers == done.answers
    with labkit.Lab.open(target="kind", role_name="reader") as lab:
        lab.remove()
    assert existing.core.list_namespaced_pod("default").items == []


def insecure(config: dict) -> None:
    del config["clusters"][0]["cluster"]["certificate-authority"]
    config["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True


def test_a_kubeconfig_with_insecure_skip_tls_verify_works_without_warnings(empty, existing, recwarn):
    file = changed(existing, insecure)
    with labkit.Lab.open(target="kind", kubeconfig=file, context="existing") as lab:
        lab.ready(through="pod")
        assert lab.check("credentials")
        lab.remove()
    assert not [one for one in recwarn if "Unverified HTTPS" in str(one.message)]


def test_a_terminal_finds_the_cluster_by_the_labs_kubeconfig(joined, existing):
    state = simulator.State.read(Folder.find())
    config = yaml.safe_load(state.kubeconfig.read_text())
    assert config["current-context"] == "blue"
    api = new_client_from_config(str(state.kubeconfig), context="blue")
    assert [node.metadata.name for node in CoreV1Api(api).list_node().items] == ["existing-control-plane"]
    api.close()


def test_labkit_up_prints_the_issuer_the_image_and_the_next_commands(empty, existing, capsys):
    up_command.join(
        cluster="blue", kubeconfig=existing.kubeconfig, context="existing", image="public.ecr.aws/aws-cli/aws-cli"
    )
    said = capsys.readouterr().out
    assert "has joined the lab; AWS and the webhooks listen on loopback only" in said
    assert f"issuer   {ISSUER}" in said
    assert "image    public.ecr.aws/aws-cli/aws-cli" in said
    assert re.search(r"End:   (\S*/)?labkit down", said)
    with labkit.Lab.open(target="kind") as lab:
        assert lab.image == "public.ecr.aws/aws-cli/aws-cli"
    up_command.join(cluster="blue", as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert (report["target"], report["issuer"]) == ("kind", ISSUER)
    done = subprocess.run(
        [LABKIT, "run", "-p", "target=kind", "-p", "role_name=in-a-terminal", "--output", empty.path / "out.ipynb"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "assumed-role/in-a-terminal/" in done.stdout
    with labkit.Lab.open(target="kind", role_name="in-a-terminal") as lab:
        lab.remove()


def test_a_later_image_option_changes_the_clusters_image(joined, existing, capsys):
    up_command.join(cluster="blue", image="example/other")
    assert "image    example/other" in capsys.readouterr().out
    with labkit.Lab.open(**existing.parameters) as again:
        assert again.image == "example/other"
    cli.status()
    assert "image example/other" in capsys.readouterr().out


def test_status_names_the_joined_cluster_and_its_report_hides_the_path(joined, existing, capsys):
    cli.status()
    said = capsys.readouterr().out
    assert f"target kind: context existing of {existing.kubeconfig}" in said
    assert "pods reach AWS at 127.0.0.1 and use the image amazon/aws-cli:2.31.13" in said
    assert "no cluster yet" not in said
    cli.status(report=True)
    report = capsys.readouterr().out
    assert "- clusters: blue (target kind)" in report
    assert str(existing.kubeconfig) not in report


def test_the_plan_says_whether_the_cluster_has_joined_the_lab(joined, existing):
    assert "which has joined the lab" in kind.plan(joined.parameters)
    assert "which has joined the lab" in kind.plan(Parameters.checked(target="kind"))
    assert "registers two webhooks" in kind.plan(Parameters.checked(target="kind", cluster="green"))


def test_labkit_fetch_reaches_the_issuer_of_a_joined_cluster_and_no_other_url(joined, capsys):
    cli.fetch(f"{ISSUER}/.well-known/openid-configuration")
    document = json.loads(capsys.readouterr().out)
    assert document["issuer"] == ISSUER
    cli.fetch(document["jwks_uri"])
    assert json.loads(capsys.readouterr().out)["keys"][0]["kty"] == "RSA"
    for other in ("https://example.com/keys", "https://[", f"{ISSUER}.example.com/keys"):
        with pytest.raises(LabError, match="belongs to none of them") as refusal:
            cli.fetch(other)
        assert refusal.value.next == f"labkit fetch {ISSUER}/.well-known/openid-configuration"


@pytest.mark.parametrize("is_mute", [False, True], ids=["gone", "mute"])
def test_a_cluster_that_does_not_answer_fails_only_fetches_of_its_own_issuer(
    empty, existing, tmp_path, capsys, monkeypatch, is_mute
):
    monkeypatch.setattr(kind_cluster, "ANSWERS_WITHIN", (1, 1))
    issuer = "https://kubernetes.default.svc.example"
    discovery = f"{issuer}/.well-known/openid-configuration"
    with contextlib.ExitStack() as cluster:
        kubeconfig = cluster.enter_context(running(tmp_path / "other", issuer))
        # The name a sorts first, so fetch asks this cluster first.
        labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig), cluster="a").close()
        labkit.Lab.open(**existing.parameters).close()
        capsys.readouterr()
        cli.fetch(discovery)
        keys = json.loads(capsys.readouterr().out)["jwks_uri"]
        if is_mute:
            cluster.enter_context(silent(kubeconfig))
        else:
            cluster.close()
        for url in (discovery, keys):
            with pytest.raises(NoWay, match=r"The API server https://127.0.0.1:[0-9]+ does not answer") as refusal:
                cli.fetch(url)
            assert f"--kubeconfig {kubeconfig} --context existing cluster-info" in refusal.value.next
        cli.fetch(f"{existing.api.configuration.host}/openid/v1/jwks")
        assert json.loads(capsys.readouterr().out)["keys"][0]["kty"] == "RSA"
    with pytest.raises(LabError, match="could not be deleted from the cluster"):
        cli.reset()


KEYS = "https://keys.example.com/of/this/cluster"
ELSEWHERE = "https://issuer.example.com/another"


def test_a_cluster_whose_issuer_has_its_keys_at_another_url_works(empty, tmp_path, capsys):
    with running(tmp_path / "other", service_account_jwks_uri=KEYS) as kubeconfig:
        with labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig), context="existing") as lab:
            assert lab.fetch(f"{ISSUER}/.well-known/openid-configuration")["jwks_uri"] == KEYS
            lab.ready(through="pod")
            for step in ("oidc_provider", "pod", "credentials"):
                assert lab.check(step), lab.check(step)
            assert not lab.diagnose(probe=True).findings
            for wrong in (f"{ISSUER}/openid/v1/jwks", f"{KEYS}/other"):
                with pytest.raises(LabError, match="neither") as refusal:
                    lab.fetch(wrong)
                assert KEYS in refusal.value.next
            capsys.readouterr()
            cli.fetch(KEYS)
            assert json.loads(capsys.readouterr().out)["keys"][0]["kty"] == "RSA"
            lab.remove()
        kind.down()


def test_a_changed_issuer_is_reported_with_the_commands_that_repair_it(empty, tmp_path, capsys):
    with running(tmp_path / "other") as kubeconfig:
        given = {"target": "kind", "kubeconfig": str(kubeconfig), "context": "existing"}
        lab = labkit.Lab.open(**given)
        lab.ready(through="service_account")
        flagged(kubeconfig.parent, service_account_issuer=ELSEWHERE)
        way_out = [
            "labkit remove -p target=kind --yes",
            "labkit down",
            f"labkit up --target kind --kubeconfig {kubeconfig} --context existing",
        ]
        capsys.readouterr()
        up = subprocess.run([LABKIT, *way_out[-1].split()[1:]], capture_output=True, text=True, timeout=120)
        doctor = subprocess.run([LABKIT, "doctor", "--target", "kind"], capture_output=True, text=True, timeout=120)
        for done, code in ((up, 1), (doctor, 2)):
            assert done.returncode == code, done.stdout + done.stderr
            assert f"The issuer of the cluster blue is now {ELSEWHERE}" in done.stderr
            assert [line.removeprefix("next:").strip() for line in done.stderr.splitlines()[-3:]] == way_out
        # A lab that was opened before the change reports the same commands.
        (finding,) = (one for one in lab.diagnose().findings if one.id == "issuer-unreachable")
        assert finding.repair.splitlines()[1:] == way_out
        cli.status()
        said = [line.strip() for line in capsys.readouterr().out.splitlines()]
        assert f"its issuer is now {ELSEWHERE}, so STS refuses the tokens of its pods. Next:" in said
        assert [line for line in said if line in way_out] == way_out
        lab.close()
        for command in way_out:
            subprocess.run([LABKIT, *command.split()[1:]], check=True, capture_output=True, timeout=120)
        with labkit.Lab.open(**given) as lab:
            assert lab.issuer == ELSEWHERE
            lab.ready(through="pod")
            assert lab.check("credentials")
            lab.remove()
        kind.down()


def test_connect_starts_no_lab_and_registers_no_webhook(empty, existing):
    with pytest.raises(LabError, match="has not joined") as refusal:
        targets.connect(Parameters.checked(**existing.parameters))
    assert "labkit up --target kind" in refusal.value.next
    assert not empty.is_running()
    assert existing.registered() == []
    with labkit.Lab.open(**existing.parameters):
        assert targets.connect(Parameters.checked(**existing.parameters)).issuer == ISSUER


def test_the_plan_names_the_cluster_and_starts_no_lab(empty, existing):
    assert "context existing of" in kind.plan(Parameters.checked(**existing.parameters))
    assert "makes a kind cluster" in kind.plan(Parameters.checked(target="kind"))
    assert not empty.is_running()


@pytest.mark.parametrize("capability", ["clock", "node_identity"])
def test_a_capability_that_the_target_lacks_is_explained(joined, capability):
    with pytest.raises(LabError, match="The target kind lacks") as refusal:
        joined.needs(capability)
    assert "skip" in refusal.value.next
    joined.needs("trail")


# AWS knows the cluster.


def test_eks_describes_the_joined_cluster(joined, existing):
    cluster = joined.aws.client("eks").describe_cluster(name="blue")["cluster"]
    assert cluster["status"] == "ACTIVE"
    assert cluster["identity"]["oidc"]["issuer"] == joined.issuer == ISSUER
    assert cluster["endpoint"] == existing.api.configuration.host
    assert cluster["tags"] == {"labkit:target": "kind"}


def token(joined: labkit.Lab, account: str = "my-service-account", audience: str = "sts.amazonaws.com") -> str:
    wanted = {"spec": {"audiences": [audience]}}
    return CoreV1Api(joined.kubernetes).create_namespaced_service_account_token(account, "default", wanted).status.token


def exchange(joined: labkit.Lab, web_identity_token: str) -> str:
    request = {"RoleArn": joined.role_arn, "RoleSessionName": "test", "WebIdentityToken": web_identity_token}
    return joined.aws.client("sts").assume_role_with_web_identity(**request)["AssumedRoleUser"]["Arn"]


def test_sts_refuses_a_wrong_subject_audience_signature_or_unknown_issuer(joined):
    joined.ready(through="service_account")
    assert exchange(joined, token(joined)).endswith(":assumed-role/my-role/test")
    with labkit.expect_denied("AccessDenied"):
        exchange(joined, token(joined, "default"))
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(joined, token(joined, audience="https://kubernetes.default.svc"))
    head, claims, signature = token(joined).split(".")
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(joined, f"{head}.{claims}.{signature[:-8]}AAAAAAAA")
    assert "signature" in str(joined.trail(last=1)).lower()
    joined.aws.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=joined.provider_arn)
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(joined, token(joined))


def test_sts_reads_the_keys_only_from_the_clusters_api_server(empty, tmp_path):
    with running(tmp_path / "other") as kubeconfig:
        lab = labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig))
        lab.ready(through="service_account")
        held = token(lab)
        assert lab.fetch(f"{ISSUER}/.well-known/openid-configuration")["issuer"] == ISSUER
        with pytest.raises(LabError, match="neither"):
            lab.fetch("https://example.com/keys")
    # The API server is gone, and nothing else has the keys.
    iam = lab.aws.client("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
    iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["ab" * 20])
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(lab, held)
    assert "verification key" in str(lab.trail(last=1))
    lab.close()
    with pytest.raises(NoWay, match="does not answer"):
        labkit.Lab.open(target="kind")
    # Reset does not wait for a cluster that is gone.
    with pytest.raises(LabError, match="Connection refused"):
        cli.reset()
    assert not empty.is_running()
