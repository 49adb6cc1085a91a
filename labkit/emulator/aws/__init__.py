"""The emulated AWS: one endpoint for every service, with moto behind it.

From the top down:

- gate.py is the way in: it authenticates a call (signature.py, sessions.py), lets a service answer it and records it
  (records.py, trail.py).
- sts.py, iam.py, s3.py, eks.py, sqs.py, cloudtrail.py and regions.py answer for their services. Each docstring starts
  with what the module doesn't do.
- actions/ finds the permissions that a call needs. authorization.py decides by all policies if the caller has them.
- web_identity.py verifies a token with the keys that issuers.py fetches.
- state/ writes each change to the lab's folder before the call is answered.
- backend.py is the only module that uses moto: its state and its answers.
- call.py, answers.py and refusals.py: the call that comes in, and the answer that goes out.
- Beside the gate: metadata.py, a node's metadata service, and eks_tokens.py, which asks the gate who signed a token.
"""
