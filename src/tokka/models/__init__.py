"""A language model: token ids in, log-likelihoods or token ids out. Open one with `models.open`."""
