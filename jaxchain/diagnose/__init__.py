"""What a chain is at one point: a survey of its states, sweeps and local Jacobians."""
