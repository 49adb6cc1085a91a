"""Why a service account doesn't get its role: the evidence, the findings, and the repairs.

`evidence` reads the system, each thing once. `repairs` writes the commands and the documents that put it right.
`stages` lists the checks, in order. `finding` defines a finding (one thing that is wrong), and the decorator that
declares a cause. `findings` has the causes. `order` sorts their findings for the report.
"""
