"""Control plane to data plane: compile what a key may do, publish it, grant its budgets."""
