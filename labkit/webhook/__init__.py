"""The pod identity webhook. It does step 5 of IRSA: it adds variables and a token volume to new pods.

EKS runs the webhook in the control plane. In a lab, the webhook is one of the cluster's listeners. There, it also does
the work of EKS Pod Identity for service accounts that have an association. `labkit webhook serve` runs the webhook for
any other API server, without associations.
https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from labkit.webhook.accounts import Account, Accounts
from labkit.webhook.review import review
from labkit.webhook.server import WebhookServer, mutating_webhook_configuration

__all__ = ["Account", "Accounts", "WebhookServer", "mutating_webhook_configuration", "review"]
