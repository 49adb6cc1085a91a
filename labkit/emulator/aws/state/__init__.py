"""AWS's state that survives the lab's server: moto's (`kept`), and the gate's own (`own`)."""
