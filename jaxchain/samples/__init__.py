"""The proof that samples of a batch never mix: one rule a primitive, one a kind of call, and the walk through a program."""
