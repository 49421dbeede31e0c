"""Floor 2: training systems on selected samples, and the record of it. Never imports serving."""
