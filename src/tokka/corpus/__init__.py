"""Documents in: files become `Document` records, documents become `Chunk`s that can be cited.

`reading.read_folder` → `chunking.chunk`. One module per file format; `reading.BUILTIN` lists them.
"""
