"""AWS's state, which survives the end of the lab's server: moto's state (`kept`) and the gate's own state (`own`)."""
