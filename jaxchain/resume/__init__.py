"""What a run of training writes so that it can be killed at any moment and goes on to the same bits.

`folder` is Orbax's part: arrays and a line of JSON, written whole or not at all. `identity` tells one run from another,
`state` turns one into arrays and back, `signals` waits for SIGTERM, and `keeping` says when something is written.
"""
