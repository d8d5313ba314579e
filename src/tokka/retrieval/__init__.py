"""Find the chunks that answer a question: lexical and dense search, fused; citations afterwards."""
