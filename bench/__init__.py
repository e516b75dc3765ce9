"""The benchmark: a fake engine and a load generator in C, and what is measured with them (`python -m bench.run -h`)."""
