"""The pod identity webhook: step 5 of IRSA, as EKS runs it in the control plane.

In a lab it is one of the cluster's listeners; `labkit webhook serve` runs it for any other API server. EKS Pod
Identity's variables (AWS_CONTAINER_CREDENTIALS_FULL_URI) are not injected: a lab has no Pod Identity associations.
https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from labkit.webhook.accounts import Account, Accounts
from labkit.webhook.review import review
from labkit.webhook.server import WebhookServer, mutating_webhook_configuration

__all__ = ["Account", "Accounts", "WebhookServer", "mutating_webhook_configuration", "review"]
