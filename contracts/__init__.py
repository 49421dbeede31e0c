"""Floor 0: what two rooms must agree on. Standard library, numpy, pydantic, pyarrow; never torch."""
