"""Generation: a runner, a cache, sampling and streaming."""
