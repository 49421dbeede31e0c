"""Floor 3: what runs when. The command line, Prefect's flows, DVC, and the one place where Ray starts."""
