"""What a program costs: operations counted from shapes, XLA's own measure of work and memory, byte budgets."""
