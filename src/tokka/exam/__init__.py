"""Exams: import them, score answers, keep questions apart from their keys."""
