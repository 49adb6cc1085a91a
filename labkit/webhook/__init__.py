"""The pod identity webhook. It adds variables and a token volume to new pods (step 5 of IRSA).

EKS runs the webhook in the control plane. In a lab, the webhook also supports EKS Pod Identity associations.
`labkit webhook serve` runs the webhook for any other API server, without support for associations.
https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from labkit.webhook.accounts import AccountSettings, ServiceAccounts
from labkit.webhook.review import review
from labkit.webhook.server import WebhookServer, mutating_webhook_configuration

__all__ = ["AccountSettings", "ServiceAccounts", "WebhookServer", "mutating_webhook_configuration", "review"]
