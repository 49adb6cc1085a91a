"""The doctor finds out why a service account's pods don't get their role, and how to repair it.

`evidence` reads facts from AWS and Kubernetes, each fact once. `findings` has the causes: each is a function that looks
at the evidence. `finding` defines a finding (one thing that is wrong) and a cause (a possible reason), and sorts
findings. `stages` lists the stages of an examination, and `repairs` writes the repair of a finding, as lines for a
shell. `checks` compares a step's expected and found values.

`examination` examines one service account, and `survey` all service accounts of a cluster. `report` defines the result,
a `Diagnosis`. `explanations` explains an error's text.

This module is the door: everybody else imports from here alone. `diagnose` examines one service account, `Survey` all.
`Evidence`, `Finding`, `Comparison` and `Diagnosis` are what they work with. A name is imported at its first use.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.doctor import checks
    from labkit.doctor.checks import Comparison
    from labkit.doctor.evidence import Evidence, Reads
    from labkit.doctor.evidence.account import tags_of
    from labkit.doctor.evidence.candidates import EKSCTL_CLUSTER, EKSCTL_NAME
    from labkit.doctor.evidence.cluster_api import ClusterApi, call_api
    from labkit.doctor.evidence.pod_spec import API_MOUNT_PATH, API_VOLUME, PodSpec, service_account_of
    from labkit.doctor.examination import diagnose, examine, examine_run
    from labkit.doctor.explanations import explain
    from labkit.doctor.finding import MARKS, Finding
    from labkit.doctor.repairs.manifest import NODE_TROUBLE
    from labkit.doctor.repairs.patches import CHANGED
    from labkit.doctor.report import Diagnosis, unread_lines
    from labkit.doctor.survey import Survey, meant_account
else:
    __getattr__ = at_first_use(__name__, {
        "checks": ["Comparison", "checks"],
        "evidence": ["Evidence", "Reads"],
        "evidence.account": ["tags_of"],
        "evidence.candidates": ["EKSCTL_CLUSTER", "EKSCTL_NAME"],
        "evidence.cluster_api": ["ClusterApi", "call_api"],
        "evidence.pod_spec": ["API_MOUNT_PATH", "API_VOLUME", "PodSpec", "service_account_of"],
        "examination": ["diagnose", "examine", "examine_run"],
        "explanations": ["explain"],
        "finding": ["MARKS", "Finding"],
        "repairs.manifest": ["NODE_TROUBLE"],
        "repairs.patches": ["CHANGED"],
        "report": ["Diagnosis", "unread_lines"],
        "survey": ["Survey", "meant_account"],
    })  # fmt: skip
