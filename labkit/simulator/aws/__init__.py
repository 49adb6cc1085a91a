"""The emulated AWS: one endpoint for every service, with moto behind it.

From the top down:

- gate.py receives every call. authentication.py finds the caller (signature.py, sessions.py). A service answers the
  call, and the gate records it in the trail (records.py, trail.py).
- services/ has one module for each service. The docstring of each module lists the differences from AWS. service.py
  says how most services behave.
- actions/ reads a call's parameters, and finds the permissions that a call of EKS, IAM or S3 needs. authorization.py
  evaluates all policies to decide whether the caller has these permissions.
- web_identity.py verifies a web identity token with the issuer's keys, which issuers.py fetches.
- state/ writes each change to the lab's folder before the lab answers the call.
- backend.py is the only module that imports moto. The other modules use backend.py to read moto's state and to
  get moto's answers. moto_guard.py checks moto's version, and keeps moto from using the network.
- call.py defines a call, the request in it and its answer. answers.py creates the answers and refusals that don't come
  from moto.
- metadata.py (a node's metadata service), pod_identity_agent.py (a node's Pod Identity Agent) and eks_tokens.py (the
  tokens of ``aws eks get-token``) use the gate directly.
"""
