"""Why a service account doesn't get its role: the evidence, the findings, and the repairs.

`evidence` reads the system, each thing once. `repairs` writes the commands and the documents that put it right.
`stages` are what is looked at, in order. `finding` is one thing that is wrong, and the declaration of a cause;
`findings` has the causes, and `order` is the order in which all that they find is told.
"""
