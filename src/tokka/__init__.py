"""tokka: turn an open-weight language model into a specialist, and prove which way works."""

__version__ = "0.1.0"
