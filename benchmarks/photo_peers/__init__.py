"""The systems that ``benchmarks.peer_photos`` compares, and how their points become those of a data set."""
