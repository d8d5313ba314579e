"""Weights stages: examples in, an adapter or new weights out. Entry: `finetune.finetune`."""
