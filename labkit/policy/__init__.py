"""Parse and evaluate IAM policy documents, without a network and without the simulator."""

from labkit.policy.conditions import ConditionResult, resource_tags
from labkit.policy.decision import Decision, Miss, Near, Outcome
from labkit.policy.document import Kind, MalformedPolicy, Policy, Statement, decode_document, statement_positions
from labkit.policy.evaluation import NO_CONTROL, Control, evaluate, matching, verdict, within
from labkit.policy.matching import Request
from labkit.policy.principals import Principal
from labkit.policy.trust import evaluate_service_trust, evaluate_trust, names_service
from labkit.policy.validation import RESOURCE_CONTROLLED

__all__ = [
    "NO_CONTROL",
    "RESOURCE_CONTROLLED",
    "ConditionResult",
    "Control",
    "Decision",
    "Kind",
    "MalformedPolicy",
    "Miss",
    "Near",
    "Outcome",
    "Policy",
    "Principal",
    "Request",
    "Statement",
    "decode_document",
    "evaluate",
    "evaluate_service_trust",
    "evaluate_trust",
    "matching",
    "names_service",
    "resource_tags",
    "statement_positions",
    "verdict",
    "within",
]
