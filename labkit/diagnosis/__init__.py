"""What keeps a service account from its role: what is read, what is wrong with it, and what repairs it.

`evidence` reads the system, each thing once. `repairs` writes the commands and the documents that put it right.
`finding` is one thing that is wrong; `findings` has the causes, each a function from the evidence to a finding.
"""
