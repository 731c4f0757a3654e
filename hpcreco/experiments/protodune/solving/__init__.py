"""How much charge each cell holds, from the wires alone: the linear equations of each time slice, and solvers."""
