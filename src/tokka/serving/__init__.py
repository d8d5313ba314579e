"""OpenAI-compatible HTTP app for one release."""
