"""A cluster may have every name that EKS allows, beside a cluster whose name differs only in case.

https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
"""

from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.commands import labkit

NAMES = ("green", "Green", "my_c", "my-c", "0" + "a" * 99, "0" + "A" * 99)


@pytest.fixture(scope="module")
def labs(home):
    labs = []
    for number, name in enumerate(NAMES):
        done = labkit("up", "--cluster", name)
        assert (done.returncode, done.stderr) == (0, "")
        labs.append(Lab.open(cluster=name, role_name=f"role-{number}"))
    return labs


def test_pods_of_clusters_with_unusual_names_get_their_roles(labs):
    for lab in labs:
        lab.ready(through="pod")
        assert lab.check("credentials"), lab.parameters.cluster


def test_clusters_whose_names_differ_only_in_case_share_no_name(home, labs):
    nodes = [node.metadata.name for lab in labs for node in CoreV1Api(lab.kubernetes).list_node().items]
    assert len({*nodes}) == len(NAMES) == len(nodes)
    assert {"green-node-1", "my-c-node-1"} <= {*nodes}
    listed = labs[0].aws.client("iam").list_roles()["Roles"]
    roles = [role["RoleName"] for role in listed if role["RoleName"].endswith("-node-role")]
    assert len({role.lower() for role in roles}) == len(NAMES) == len(roles)
    assert max(map(len, roles)) <= 64
    for folder in ("clusters", "pods"):
        names = [each.name for each in (home / folder).iterdir() if each.is_dir() and each.name != ".clock"]
        assert len({name.lower() for name in names}) == len(NAMES) == len(names)


def test_a_cluster_with_a_capital_keeps_its_objects_when_the_lab_starts_again(home, labs):
    assert labkit("down").returncode == 0
    assert labkit("up", "--cluster", "Green").returncode == 0
    with Lab.open(cluster="Green", role_name="role-1") as again:
        assert again.check("credentials")
        restored = again.connection.webhook_restored_by
    assert Path(restored.split('"')[1].replace("$LABKIT_HOME", str(home))).is_file()
