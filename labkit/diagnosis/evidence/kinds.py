"""The values for a cause's `reads`. Each names calls, and at least one of them must have been answered."""

Kinds = tuple[str, ...]

# Who may not list may still get one of a name.
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

# What is only read where commands may be run in the pod.
CLAIMS: Kinds = ("the token's claims in pod",)
CALLER: Kinds = ("sts:GetCallerIdentity in pod",)
EXCHANGE: Kinds = ("sts:AssumeRoleWithWebIdentity with the token in pod", *CALLER)
