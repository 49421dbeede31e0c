"""Floor 1: the papers' networks, losses and pipelines; nothing here knows how training or serving run."""
