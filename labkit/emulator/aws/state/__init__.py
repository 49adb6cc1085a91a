"""AWS's state, which survives the end of the lab's server: moto's (`kept`) and the gate's own (`own`)."""
