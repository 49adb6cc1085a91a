"""The Helm values fit Zero to JupyterHub's schema, which finds a typo and a wrong type in them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from jsonschema import Draft7Validator
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from labkit.errors import LabError
from labkit.workshop import helm_values, leading, read
from labkit.workshop.settings import EXAMPLE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "tests/schemas/z2jh"


@pytest.fixture(scope="module")
def schema():
    return Draft7Validator(yaml.safe_load((CHART / "values.schema.yaml").read_text()))


@pytest.fixture
def workshop(tmp_path):
    (tmp_path / "workshop.yaml").write_text(EXAMPLE.replace("users: 50", "users: 500"))
    return read(tmp_path)


def merged(defaults, values):
    """Return the chart's defaults with values in their place, as Helm merges them."""
    if not isinstance(defaults, dict) or not isinstance(values, dict):
        return values
    return defaults | {key: merged(defaults.get(key), value) for key, value in values.items()}


def errors(schema, values) -> list[str]:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return [error.message for error in schema.iter_errors(merged(defaults, values))]


@pytest.mark.parametrize("user_namespaces", [False, True])
def test_the_values_fit_the_charts_schema(workshop, schema, user_namespaces):
    values = yaml.safe_load(helm_values(workshop, "registry.example:5000/lab:1.0", user_namespaces=user_namespaces))
    assert errors(schema, values) == []
    server = values["singleuser"]
    assert server["image"] == {"name": "registry.example:5000/lab", "tag": "1.0"}
    assert (server["uid"], server["memory"]["limit"], server["cpu"]["limit"]) == (1000, "1536M", 1.5)
    assert server["extraPodConfig"].get("hostUsers", True) is not user_namespaces
    rules = merged(yaml.safe_load((CHART / "values.yaml").read_text()), values)["singleuser"]["networkPolicy"]
    assert rules["enabled"] and rules["ingress"] == []
    allowed = {rule for rule, allows in rules["egressAllowRules"].items() if allows}
    assert allowed and all(rule.startswith("dnsPorts") for rule in allowed)
    assert values["hub"]["activeServerLimit"] == 500


def test_the_board_is_a_service_of_the_hub_that_proxy_and_participants_reach(workshop):
    values = yaml.safe_load(helm_values(workshop, "registry.example:5000/lab:1.0"))
    hub, server = values["hub"], values["singleuser"]
    assert hub["services"]["board"]["url"] == "http://hub:8082"
    report = "http://hub:8082/services/board/report"
    assert server["extraEnv"] == {"LABKIT_BOARD": report, "LABKIT_LEADERS": "leader"}
    (container,) = hub["extraContainers"]
    (port,), (opened,) = container["ports"], hub["service"]["extraPorts"]
    assert (port["containerPort"], opened["port"], opened["targetPort"]) == (8082, 8082, port["name"])
    (comes,), (goes,) = hub["networkPolicy"]["ingress"], server["networkPolicy"]["egress"]
    assert comes["ports"] == goes["ports"] == [{"protocol": "TCP", "port": 8082}]
    # Labels of the chart: the proxy's and the participants' pods, and the hub's.
    assert comes["from"] == [{"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-hub": "true"}}}]
    assert goes["to"] == [{"podSelector": {"matchLabels": {"component": "hub"}}}]


def test_the_boards_container_starts_a_board_that_takes_orders(workshop, tmp_path):
    values = helm_values(workshop, "lab:1.0").replace("/home/jovyan", str(tmp_path / "home"))
    (container,) = yaml.safe_load(values)["hub"]["extraContainers"]
    env = {each["name"]: each.get("value", "the-hubs-token") for each in container["env"]}
    # A loopback address of its own stands for the pod's.
    command = [part.replace("0.0.0.0", "127.0.15.254") for part in container["command"]]
    environment = os.environ | env | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment) as board:
        try:
            page = answer("http://127.0.15.254:8082/services/board/")
            assert page.status_code == 302 and page.headers["Location"].startswith("/hub/api/oauth2/authorize?")
            folder = tmp_path / "home/board"
            assert stat.S_IMODE((folder / "board-token").stat().st_mode) == 0o600
            assert leading.goto(read(folder), "05") == 0  # no lab reports
        finally:
            board.terminate()


def test_the_board_gets_a_title_with_dollars_as_it_is_written(tmp_path):
    (tmp_path / "workshop.yaml").write_text('names: [ana]\ntitle: "$$ for $(HOSTNAME)"\n')
    (container,) = yaml.safe_load(helm_values(read(tmp_path), "lab:1.0"))["hub"]["extraContainers"]
    # $$ becomes $: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    started = container["env"][0]["value"].replace("$$", "$")
    assert yaml.safe_load(started)["title"] == "$$ for $(HOSTNAME)"


@retry(stop=stop_after_delay(60), wait=wait_fixed(0.1), retry=retry_if_exception_type(httpx.TransportError))
def answer(url):
    return httpx.get(url, trust_env=False)


def test_a_typo_and_a_wrong_type_in_the_values_are_found(workshop, schema):
    values = yaml.safe_load(helm_values(workshop, "lab:1.0"))
    typo = merged(values, {"singleuser": {"memmory": {"limit": "1G"}}})
    assert any("'memmory' was unexpected" in message for message in errors(schema, typo))
    wrong = merged(values, {"singleuser": {"networkPolicy": {"enabled": "yes"}}})
    assert errors(schema, wrong) == ["'yes' is not of type 'boolean'"]


def test_only_the_named_and_the_phrases_knowers_log_in(tmp_path, workshop):
    config = yaml.safe_load(helm_values(workshop, "lab:1.0"))["hub"]["config"]
    assert config["Authenticator"] == {
        "username_pattern": "^[a-z][a-z0-9-]{0,29}$",
        "allowed_users": ["ana", "ben", "chi", "leader"],
    }
    passwords = config["ClassPasswords"]
    assert passwords["leaders"] == ["leader"]
    assert len(passwords["password"]) >= 16 and len(passwords["leaders_password"]) >= 32
    (tmp_path / "workshop.yaml").write_text("phrase: correct horse battery\n")
    config = yaml.safe_load(helm_values(read(tmp_path), "lab:1.0"))["hub"]["config"]
    assert config["Authenticator"].keys() == {"username_pattern", "allow_all"}
    assert config["ClassPasswords"]["password"] == "correct horse battery" and not config["ClassPasswords"]["leaders"]


@pytest.mark.parametrize("image", ["lab", "lab:", ":1.0", "registry.example:5000/lab"])
def test_an_image_without_a_tag_is_one_sentence(workshop, image):
    with pytest.raises(LabError, match="has no tag"):
        helm_values(workshop, image)


def test_a_title_of_several_lines_is_one_line(tmp_path):
    (tmp_path / "workshop.yaml").write_text('names: [ana]\ntitle: "Roles\\nfor: a class"\n')
    text = helm_values(read(tmp_path), "lab:1.0")
    assert yaml.safe_load(text)["hub"]["config"]["JupyterHub"]["template_vars"]["announcement_login"] == (
        "Roles for: a class"
    )


def test_the_command_prints_the_values(workshop):
    command = [sys.executable, "-m", "labkit.cli", "workshop", "values", workshop.folder, "--image", "lab:1.0"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("# IAM Roles for Service Accounts: values") and yaml.safe_load(printed)["cull"]["enabled"]


def test_an_image_with_another_python_is_one_sentence(tmp_path):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    script = ROOT / "labkit/workshop/image.sh"
    done = subprocess.run(
        ["/bin/sh", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith("image.sh: the base image has no Python 3.11 or newer.") and done.stderr.count("\n") == 1
    )
