"""Groups of calls that the doctor makes. The field `reads` of a cause lists the groups that the cause needs.

The cause needs an answer to at least one call of each group.
"""

Kinds = tuple[str, ...]

# A caller who can't list may still be allowed to get one object by name.
PODS: Kinds = ("list pods", "get pod")
SERVICE_ACCOUNTS: Kinds = ("list serviceaccounts", "get serviceaccount")
REGISTRATION: Kinds = ("get mutatingwebhookconfiguration",)

PROVIDERS: Kinds = ("iam:ListOpenIDConnectProviders",)
PROVIDER: Kinds = ("iam:GetOpenIDConnectProvider",)
IDENTITY_PROVIDER_CONFIGS: Kinds = ("eks:ListIdentityProviderConfigs",)
ROLE: Kinds = ("iam:GetRole",)
ATTACHED_POLICIES: Kinds = ("iam:ListAttachedRolePolicies",)
INLINE_POLICIES: Kinds = ("iam:ListRolePolicies",)

DISCOVERY: Kinds = ("its discovery document",)
KEYS: Kinds = ("its keys",)

# These are only read if the doctor may run commands in the pod.
CLAIMS: Kinds = ("the token's claims in pod",)
CALLER: Kinds = ("sts:GetCallerIdentity in pod",)
EXCHANGE: Kinds = ("sts:AssumeRoleWithWebIdentity with the token in pod", *CALLER)
