"""Build an arm: its lessons, its shots and, at the end, the candidate's identity."""
