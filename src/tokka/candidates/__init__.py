"""A candidate opened: weights, prompt and retrieval in one object that answers.
`opening.open_candidate`."""
