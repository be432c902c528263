"""Training data as streams: rows of files, mixed by weight, in batches that every rank agrees on.

A shard is opened for its index only (where each row begins), and a row is read when it is asked
for. So the order may be any, a stream goes on exactly where it stopped, and a rank that passes a
row by does not read it. `webdataset` reads tars from end to end instead: its shuffle buffers and
its split by worker make neither an exact resume nor a batch that is the same on one rank and two.
"""
