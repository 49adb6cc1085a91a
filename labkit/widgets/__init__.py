"""What the notebooks draw: the journey, the check of a step, the token view, questions, who gets in, and the calls.

Each renders as text and as plain HTML, which is what a stored notebook holds and a code host shows. In a running
notebook a widget takes their place: the same HTML, coloured, with a button that reads the live lab again.
"""
