"""The emulated AWS: one endpoint for every service, with moto behind it.

From the top down:

- gate.py is the way in: it authenticates a call (signature.py, sessions.py), lets a service answer it and writes the
  record of it (records.py, trail.py).
- sts.py, iam.py, s3.py, eks.py, sqs.py, cloudtrail.py and regions.py answer for their services. Each opens with what it
  does not do.
- authorization.py decides by all policies together whether a caller may do what actions/ found that the call needs.
- web_identity.py verifies a token with the keys that issuers.py fetches.
- state/ keeps all of that in the lab's folder, before a call is answered.
- backend.py is moto: what it keeps and what it answers.
- call.py, answers.py and refusals.py: what comes in and what goes out.
- Beside the gate: metadata.py, a node's metadata service, and eks_tokens.py, which asks the gate who signed a token.
"""
