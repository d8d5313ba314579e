"""Exams to and from lm-evaluation-harness: its task files, its marking, its results.

The layouts and rules are those of version 0.4.13.
"""
