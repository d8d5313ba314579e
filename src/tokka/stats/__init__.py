"""Numbers into claims: intervals, paired tests, corrections, power, verdicts.

Scores go in, `Interval`, `Comparison` and `Verdict` records come out. Nothing here reads a file or
knows a model. Import the leaf modules (`tokka.stats.compare`, …): they load NumPy and SciPy, this
package doesn't.
"""
